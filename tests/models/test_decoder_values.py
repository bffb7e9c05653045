"""Whole decoders against the loops of `tests/plain.py`, in inference and with every dropout at work."""

import numpy as np
import pytest

from tests import plain
from tinyformer import backends
from tinyformer.models import ModelConfig, build

RATE = 0.3
VARIANTS = {
    "gpt2": {},
    "ours": {"positions": "rotary", "norm": "rms", "bias": False},
    "original": {"positions": "sinusoidal", "norm_position": "post", "activation": "relu", "tied": False},
    "gated": {"gated": True, "activation": "silu", "positions": "none", "epsilon": 0.05},
}


@pytest.fixture(params=VARIANTS)
def decoder(request):
    """A model, its configuration, and its parameters, all of them random, as plain arrays."""
    sizes = {"vocabulary": 11, "context": 9, "layers": 2, "heads": 2, "width": 8, "hidden": 12, "dropout": RATE}
    config = ModelConfig(**sizes | VARIANTS[request.param])
    model, rng = build(config, dtype="float64"), np.random.default_rng(0)
    parameters = {name: rng.standard_normal(p.shape) * 0.5 for name, p in model.parameters().items()}
    model.assign(parameters)
    return model, config, parameters


IDS = np.random.default_rng(1).integers(0, 11, (2, 7))


def test_logits(decoder):
    model, config, parameters = decoder
    np.testing.assert_allclose(model(IDS).numpy(), plain.decoder(parameters, IDS, config), rtol=1e-9, atol=1e-11)


def test_each_dropout_acts_at_its_rate(decoder):
    """On the embeddings, and in each block on the attention's weights and on what both parts add to the stream."""
    model, config, parameters = decoder
    streams, shapes = [backends.get("numpy").generator(5) for _ in range(2)], []

    def drop(shape):
        shapes.append(shape)
        return streams[0].keep(shape, 1.0 - RATE) / (1.0 - RATE)

    expected = plain.decoder(parameters, IDS, config, drop)
    np.testing.assert_allclose(model(IDS, rng=streams[1]).numpy(), expected, rtol=1e-9, atol=1e-11)
    stream, weights = (2, 7, 8), (2, 2, 7, 7)
    assert shapes == [stream, *2 * [weights, stream, stream]]


def test_epsilon_is_that_of_the_published_weights():
    assert ModelConfig(vocabulary=11).epsilon == 1e-5
