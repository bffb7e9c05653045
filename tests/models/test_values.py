"""Whole encoders and encoder-decoders against the loops of `tests/plain.py`, in inference and with every dropout."""

import numpy as np
import pytest

from tests import plain
from tinyformer import backends
from tinyformer.models import ModelConfig, build

RATE = 0.3
BERT = {
    "mode": "encoder",
    "norm_position": "post",
    "segments": 2,
    "embedding_norm": True,
    "activation": "gelu-exact",
    "head": "transform",
    "next_sentence": True,
}
T5 = {
    "mode": "encoder-decoder",
    "positions": "relative",
    "buckets": 8,
    "max_distance": 6,
    "norm": "rms",
    "bias": False,
    "scaled_scores": False,
    "scaled_head": True,
    "activation": "relu",
    "head_width": 3,
}
ENCODERS = {
    "bert": BERT,
    "pre-norm": BERT | {"norm_position": "pre", "embedding_norm": False, "segments": 0, "tied": False},
    "relative": BERT | {"positions": "relative", "buckets": 8, "max_distance": 6, "head": "linear"},
    "rotary": BERT | {"positions": "rotary", "norm": "rms", "next_sentence": False},
    "sinusoidal": BERT | {"positions": "sinusoidal", "scaled_embedding": True, "segments": 3},
}
ENCODER_DECODERS = {
    "t5": T5,
    "t5-v1.1": T5 | {"gated": True, "activation": "gelu", "tied": False, "scaled_head": False, "decoder_layers": 1},
    "original": {
        "mode": "encoder-decoder",
        "positions": "sinusoidal",
        "norm_position": "post",
        "activation": "relu",
        "scaled_embedding": True,
    },
    "learned": {"mode": "encoder-decoder", "decoder_layers": 3, "segments": 2},
    "rotary": {"mode": "encoder-decoder", "positions": "rotary", "norm": "rms"},
}
RNG = np.random.default_rng(1)
IDS, TARGET = RNG.integers(0, 11, (2, 7)), RNG.integers(0, 11, (2, 5))
SEGMENTS = RNG.integers(0, 2, (2, 7))
PADDED = np.array([[True] * 7, [True] * 4 + [False] * 3])
DOCUMENTS = np.array([[1, 1, 1, 2, 2, 2, 2], [1, 1, 2, 2, 3, 0, 0]])
POSITIONS = np.array([[0, 1, 2, 0, 1, 2, 3], [0, 1, 0, 1, 0, 0, 0]])
ALIKE = (DOCUMENTS[:, :, None] == DOCUMENTS[:, None, :]) & (DOCUMENTS != 0)[:, None, :]


def made(choices):
    """A model, its configuration, and its parameters, all of them random, as plain arrays."""
    sizes = {"vocabulary": 11, "context": 9, "layers": 2, "heads": 2, "width": 8, "hidden": 12, "dropout": RATE}
    config = ModelConfig(**sizes | {"epsilon": 0.01} | choices)
    model, rng = build(config, dtype="float64"), np.random.default_rng(0)
    parameters = {name: rng.standard_normal(p.shape) * 0.5 for name, p in model.parameters().items()}
    model.assign(parameters)
    return model, config, parameters


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


def two_streams():
    """Factors of a dropout for the loops, and the generator from which the model draws the same."""
    first, second = (backends.get("numpy").generator(5) for _ in range(2))
    return lambda shape: first.keep(shape, 1.0 - RATE) / (1.0 - RATE), second


@pytest.mark.parametrize("dropped", [False, True], ids=["inference", "dropout"])
@pytest.mark.parametrize("seen", ["all", "padded", "documents"])
@pytest.mark.parametrize("variant", ENCODERS)
def test_encoder(variant, seen, dropped):
    model, config, parameters = made(ENCODERS[variant])
    given = {"segments": SEGMENTS if config.segments else None}
    given["mask"] = {"all": None, "padded": PADDED, "documents": DOCUMENTS}[seen]
    given["positions"] = POSITIONS if seen == "documents" else None
    drop, rng = two_streams() if dropped else (plain.keep_all, None)
    expected, pair = plain.encoder(
        parameters, IDS, config, drop, **given | {"mask": ALIKE if seen == "documents" else given["mask"]}
    )
    hidden = model.hidden(IDS, **given, rng=rng)
    close(model.score(hidden).numpy(), expected)
    if pair is not None:
        close(model.next_sentence_logits(hidden).numpy(), pair)
    if not dropped:
        close(model(IDS, **given).numpy(), expected)


@pytest.mark.parametrize("dropped", [False, True], ids=["inference", "dropout"])
@pytest.mark.parametrize("mask", [None, PADDED], ids=["all", "padded"])
@pytest.mark.parametrize("variant", ENCODER_DECODERS)
def test_encoder_decoder(variant, mask, dropped):
    model, config, parameters = made(ENCODER_DECODERS[variant])
    drop, rng = two_streams() if dropped else (plain.keep_all, None)
    segments = {"segments": SEGMENTS} if config.segments else {}
    expected = plain.encoder_decoder(parameters, IDS, TARGET, config, mask, drop, **segments)
    close(model(IDS, TARGET, mask=mask, rng=rng, **segments).numpy(), expected)


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary", "relative"])
def test_documents_that_share_a_decoder_s_row(positions):
    model, config, parameters = made({"positions": positions, "buckets": 8, "max_distance": 6})
    found = model(IDS, mask=DOCUMENTS, positions=POSITIONS).numpy()
    close(found, plain.decoder(parameters, IDS, config, mask=ALIKE, positions=POSITIONS))


def test_what_bert_s_heads_have():
    _, _, parameters = made(BERT)
    shapes = {name: p.shape for name, p in parameters.items() if name.startswith(("head", "pooler", "next_sentence"))}
    assert shapes == {
        "head.dense.weight": (8, 8),
        "head.dense.bias": (8,),
        "head.norm.weight": (8,),
        "head.norm.bias": (8,),
        "head.bias": (11,),
        "pooler.weight": (8, 8),
        "pooler.bias": (8,),
        "next_sentence.weight": (8, 2),
        "next_sentence.bias": (2,),
    }


def test_t5_starts_as_its_code_does():
    """Deviations of the weights: Mesh TensorFlow's, which transformers has too."""
    d, h, c, f, v = 128, 8, 32, 512, 200
    sizes = {"vocabulary": v, "layers": 1, "heads": h, "width": d, "head_width": c, "hidden": f, "buckets": 64}
    parameters = build(ModelConfig(**T5 | sizes | {"max_distance": 128})).parameters()
    expected = {
        "tokens": 1.0,
        "decoder.relative": d**-0.5,
        "encoder.blocks.0.attention.query": (d * c) ** -0.5,
        "encoder.blocks.0.attention.key": d**-0.5,
        "encoder.blocks.0.attention.value": d**-0.5,
        "encoder.blocks.0.attention.output": (h * c) ** -0.5,
        "decoder.blocks.0.cross_attention.query": (d * c) ** -0.5,
        "decoder.blocks.0.feed_forward.up": d**-0.5,
        "decoder.blocks.0.feed_forward.down": f**-0.5,
    }
    for name, deviation in expected.items():
        found = parameters[f"{name}.weight"].numpy()
        assert found.std() == pytest.approx(deviation, rel=5 / (2 * found.size) ** 0.5), name
