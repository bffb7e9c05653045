"""The decoder: causality, the cache, its sizes, and what it refuses."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyformer import backward, no_grad
from tinyformer.models import ModelConfig, build
from tinyformer.objectives import CausalLM

VARIANTS = {
    "gpt2": {},
    "ours": {"positions": "rotary", "norm": "rms", "bias": False},
    "original": {"positions": "sinusoidal", "norm_position": "post", "activation": "relu", "tied": False},
    "gated": {"gated": True, "activation": "silu", "positions": "none"},
}


def make(variant="gpt2", dtype="float64", **sizes):
    sizes = {"vocabulary": 17, "context": 12, "layers": 2, "heads": 2, "width": 8, "hidden": 16} | sizes
    return build(ModelConfig(**sizes, **VARIANTS[variant]), dtype=dtype, seed=3)


def draw_ids(seed, batch=2, length=12, vocabulary=17):
    return np.random.default_rng(seed).integers(0, vocabulary, (batch, length))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(seed=st.integers(0, 2**32 - 1), position=st.integers(0, 79))
def test_a_token_never_changes_earlier_logits(variant, dtype, seed, position):
    """Equal bit for bit, also across the blocks that the attention kernel works in."""
    model, ids = make(variant, dtype, context=80), draw_ids(seed, length=80)
    changed = ids.copy()
    changed[:, position] = (changed[:, position] + 1) % 17
    with no_grad():
        before, after = model(ids).numpy(), model(changed).numpy()
    np.testing.assert_array_equal(before[:, :position], after[:, :position])
    assert (before[:, position:] != after[:, position:]).any()


@pytest.mark.parametrize("variant", VARIANTS)
@given(seed=st.integers(0, 2**32 - 1), pieces=st.lists(st.integers(1, 6), min_size=1, max_size=6))
def test_cache_gives_the_same_logits(variant, seed, pieces):
    model, ids = make(variant, context=36), draw_ids(seed, length=sum(pieces))
    cache, start, found = model.new_cache(2), 0, []
    with no_grad():
        for size in pieces:
            found.append(model(ids[:, start : start + size], cache=cache).numpy())
            start += size
            assert cache.length == start
        np.testing.assert_allclose(np.concatenate(found, axis=1), model(ids).numpy(), atol=1e-12)


@given(seed=st.integers(0, 2**32 - 1), first=st.integers(1, 11))
def test_cache_keeps_documents_apart(seed, first):
    """Numbers of documents are of all positions, and the ids only of the new ones."""
    model, ids = make(), draw_ids(seed)
    numbers = np.sort(np.random.default_rng(seed).integers(1, 4, ids.shape), axis=1)
    with no_grad():
        cache, whole = model.new_cache(2), model(ids, mask=numbers).numpy()
        model(ids[:, :first], mask=numbers[:, :first], cache=cache)
        found = model(ids[:, first:], mask=numbers, cache=cache).numpy()
    np.testing.assert_allclose(found, whole[:, first:], atol=1e-12)


def test_cache_rows_can_be_reordered():
    model, ids = make(), draw_ids(0, batch=3)
    cache = model.new_cache(3)
    rows = np.array([2, 2, 0])
    with no_grad():
        model(ids[:, :5], cache=cache)
        cache.select(rows)
        expected = model(ids[rows]).numpy()[:, 5:]
        np.testing.assert_allclose(model(ids[rows][:, 5:], cache=cache).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_last_position_alone(variant):
    model, ids = make(variant), draw_ids(0)
    last = model(ids, last_only=True).numpy()
    np.testing.assert_allclose(last, model(ids).numpy()[:, -1:], atol=1e-14)


def test_masked_tokens_have_no_influence():
    model, ids = make(), draw_ids(0)
    mask = np.ones(ids.shape, bool)
    mask[:, :3] = False  # padding on the left
    changed = ids.copy()
    changed[:, :3] = (changed[:, :3] + 1) % 17
    np.testing.assert_array_equal(model(ids, mask=mask).numpy()[:, 3:], model(changed, mask=mask).numpy()[:, 3:])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_has_a_gradient_and_the_loss_starts_at_ln_v(variant):
    model = make(variant, vocabulary=512)
    objective = CausalLM()
    loss = objective.loss(model, objective.corrupt(draw_ids(0, 8, 13, 512)))
    assert loss.item() == pytest.approx(math.log(512), abs=0.1)
    gradients = backward(loss)
    for name, parameter in model.parameters().items():
        assert np.abs(gradients[parameter]).max() > 0 or name.endswith("key.bias"), name


def test_residual_projections_start_small():
    model = build(ModelConfig(vocabulary=8, layers=8, width=256, heads=4, hidden=1024))
    for block in model.stack.blocks:
        assert block.attention.query.weight.numpy().std() == pytest.approx(0.02, rel=0.05)
        assert block.attention.output.weight.numpy().std() == pytest.approx(0.02 / 4, rel=0.05)
        assert block.feed_forward.down.weight.numpy().std() == pytest.approx(0.02 / 4, rel=0.05)


def test_tied_head_is_the_embedding():
    tied, loose = make(), make("original")
    assert "head.output.weight" not in tied.parameters()
    assert loose.parameters()["head.output.weight"].shape == (8, 17)


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (np.zeros(3, int), ValueError, r"ids of shape \(batch, tokens\), and these have \(3,\)"),
        (np.zeros((1, 0), int), ValueError, r"these have \(1, 0\)"),
        (np.zeros((1, 13), int), ValueError, "there are 12 learned positions, and 13 tokens"),
        (np.full((1, 2), 17), IndexError, "must lie in 0 to 16"),
        (np.zeros((1, 2)), TypeError, "indices must be integers"),
    ],
)
def test_bad_ids(ids, error, message):
    with pytest.raises(error, match=message):
        make()(ids)


def test_the_same_seed_makes_the_same_model():
    first, again, other = (build(ModelConfig(vocabulary=9), seed=seed) for seed in (1, 1, 2))
    for name, parameter in first.parameters().items():
        np.testing.assert_array_equal(parameter.numpy(), again.parameters()[name].numpy())
    assert (first.tokens.weight.numpy() != other.tokens.weight.numpy()).any()
