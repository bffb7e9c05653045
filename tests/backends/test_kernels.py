"""What the cases of `tests/cases.py` do not draw: what a kernel keeps, and what it leaves to its reference."""

import tracemalloc

import numpy as np
import pytest

from tests import plain
from tinyformer import Tensor, backward, fused, ops


def drawn(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def leaves(*arrays):
    return [Tensor(array, requires_grad=True) for array in arrays]


@pytest.mark.parametrize(("dtype", "level", "large"), [("float16", 11.5, 1.0), ("float32", 57.0, 1e14)])
def test_exponentials_leave_room_for_what_they_are_multiplied_with(dtype, level, large):
    """Scores that have a finite exponential, whose sum, or product with a value, is beyond the dtype."""
    query, key = np.zeros((2, 1, 1, 8, 4))
    value = large * drawn(1, 1, 8, 4)
    inputs = [Tensor(x.astype(dtype)) for x in (query, key, value)]
    out = fused.attention(*inputs, None, Tensor(np.full((8, 8), level, dtype)))
    expected = np.broadcast_to(value.mean(axis=2, keepdims=True), value.shape)  # all keys have the same score
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-2 if dtype == "float16" else 1e-5)


def test_a_row_of_scores_is_shifted_for_its_own_sake_only():
    """Bit for bit: another row of the block, whose scores are so large that they need a shift, changes nothing."""
    query, key, value = drawn(3, 2, 2, 70, 4, dtype=np.float32)
    results = []
    for factor in (1.0, 1e4):
        query[1] *= factor
        inputs = leaves(query.copy(), key, value)
        out = fused.attention(*inputs)
        gradients = backward(ops.sum(out * out))
        results.append([x[0] for x in (out.numpy(), *(gradients[leaf] for leaf in inputs))])
    for alone, beside in zip(*results):
        np.testing.assert_array_equal(alone, beside)


def test_causal_attention_with_more_queries_than_keys():
    """The last query stands at the last key, so the first ones see nothing."""
    query, key, value = drawn(1, 2, 70, 4), drawn(1, 2, 5, 4, seed=1), drawn(1, 2, 5, 4, seed=2)
    visible = np.broadcast_to(np.tri(70, 5, -65, dtype=bool), (1, 2, 70, 5))
    expected = plain.attend(query, key, value, visible=visible, factor=np.ones(visible.shape), scale=0.5)
    out = fused.attention(*map(Tensor, (query, key, value)), causal=True)
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-13)


@pytest.mark.parametrize(("batch", "queries"), [(0, 3), (2, 0)])
def test_attention_of_no_rows_or_queries(batch, queries):
    query, key = Tensor(np.ones((batch, 2, queries, 4))), Tensor(np.ones((batch, 2, 3, 4)))
    assert fused.attention(query, key, key).shape == query.shape


def kept_by(compute):
    """Bytes that arrays hold once a graph is made."""
    tracemalloc.start()
    try:
        out = compute()
        return out, tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_attention_over_many_keys_keeps_no_weights():
    inputs = leaves(*drawn(3, 1, 2, 640, 4, dtype=np.float32))
    _, kept = kept_by(lambda: fused.attention(*inputs, causal=True))
    assert kept < 2 * 640 * 640 * 4 / 10


def test_no_copy_of_turned_keys_is_kept():
    inputs = leaves(*drawn(3, 1, 2, 64, 1024, dtype=np.float32))
    out, kept = kept_by(lambda: fused.attention(*inputs))
    assert kept < 1.5 * out.array.nbytes


def test_targets_without_a_weight_have_no_mean():
    with pytest.raises(ValueError, match="no target has a weight"):
        fused.cross_entropy(Tensor(np.ones((2, 3))), np.zeros(2, int), np.zeros(2))


def test_the_exact_gelu_of_numbers_whose_square_is_beyond_single_precision():
    x = np.array([-1e30, 1e30], np.float32)
    (leaf,) = leaves(x)
    out = fused.gelu(leaf, approximate=False)
    np.testing.assert_array_equal(out.numpy(), np.maximum(x, 0))
    np.testing.assert_allclose(backward(ops.sum(out))[leaf], [0, 1], atol=1e-7)


@pytest.mark.parametrize("overwrite", [False, True])
def test_cross_entropy_overwrites_only_what_it_may(overwrite):
    logits = drawn(6, 50)
    (leaf,) = leaves(logits.copy())
    gradient = backward(fused.cross_entropy(leaf, np.arange(6), overwrite=overwrite))[leaf]
    assert np.shares_memory(gradient, leaf.array) == overwrite
    if not overwrite:
        np.testing.assert_array_equal(leaf.array, logits)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(gradient, (p - np.eye(50)[np.arange(6)]) / 6, atol=1e-15)


def everything(x):
    """Each kernel, on x and on what is fit for it, `b t d` with an even d."""
    width = x.shape[-1]
    ones, square = Tensor(np.ones(width, x.dtype)), Tensor(np.eye(width, dtype=x.dtype))
    angles = np.ones((2, x.shape[1], width // 2), x.dtype)
    heads = x[:, None]
    return {
        "attention": lambda: fused.attention(heads, heads, heads, causal=True),
        "cross_entropy": lambda: fused.cross_entropy(x, np.zeros(x.shape[:2], int)),
        "dropout": lambda: fused.dropout(x, np.ones(x.shape, bool), rate=0.5),
        "feed_forward": lambda: fused.feed_forward(x, square, square, ones, ones, activation="gelu"),
        "gated": lambda: fused.gated(x, x, activation="silu"),
        "gelu": lambda: fused.gelu(x),
        "layer_norm": lambda: fused.layer_norm(x, ones, ones, x),
        "linear": lambda: fused.linear(x, square, ones),
        "relu": lambda: fused.relu(x),
        "rms_norm": lambda: fused.rms_norm(x, ones),
        "rotary": lambda: fused.rotary(heads, *angles),
        "silu": lambda: fused.silu(x),
        "softmax": lambda: fused.softmax(x),
    }


@pytest.mark.parametrize("name", fused.registry)
def test_a_kernel_writes_into_nothing_that_others_hold(name):
    """Inputs, results and incoming gradients are locked while forward and backward run."""
    array = drawn(2, 3, 4)
    array.flags.writeable = False
    (x,) = leaves(array)
    out = everything(x)[name]()
    cotangent = drawn(*out.shape) if out.shape else np.array(0.5)
    for held in (out.array, cotangent):
        held.flags.writeable = False
    backward(out, cotangent)


@pytest.mark.parametrize("name", fused.registry)
def test_a_result_that_is_used_twice_gets_both_gradients(name):
    """Two closures return the very array that they are given, and a kernel's backward gets the sum."""
    array, gradients = drawn(2, 3, 4), []
    for add in (lambda out: out * 3.0, lambda out: out + (out + out)):
        (x,) = leaves(array)
        gradients.append(backward(ops.sum(add(everything(x + x)[name]())))[x])
    np.testing.assert_allclose(*gradients, atol=1e-14)


@pytest.mark.parametrize("name", ["layer_norm", "linear", "rms_norm"])
@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("float64", "float32")])
def test_kernels_do_not_mix_precisions(name, dtypes):
    x, weight = np.ones((2, 3), dtypes[0]), np.ones((3, 3) if name == "linear" else 3, dtypes[1])
    with pytest.raises(TypeError, match="do not mix"):
        fused.registry[name](Tensor(x), Tensor(weight))


def test_gates_do_not_mix_precisions():
    with pytest.raises(TypeError, match="do not mix"):
        fused.gated(Tensor(np.ones(3)), Tensor(np.ones(3, np.float32)), activation="silu")


def test_a_gate_may_be_broadcast():
    gate, up = drawn(2, 1), drawn(2, 3)
    found = fused.gated(Tensor(gate), Tensor(up), activation="relu")
    np.testing.assert_allclose(found.numpy(), np.maximum(gate, 0) * up)


def test_truth_values_of_a_dropout_may_be_broadcast():
    x, keep = drawn(2, 3), np.array([True, False, True])
    np.testing.assert_allclose(fused.dropout(Tensor(x), keep, rate=0.5).numpy(), 2 * x * keep)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3)])
def test_a_linear_map_of_no_rows(shape):
    x, weight, bias = leaves(np.ones(shape), np.ones((3, 2)), np.ones(2))
    out = fused.linear(x, weight, bias)
    assert out.shape == (*shape[:-1], 2)
    gradients = backward(ops.sum(out))
    assert gradients[x].shape == shape
    assert not gradients[weight].any()
    assert not gradients[bias].any()


def test_the_gradient_of_a_turned_weight_lies_as_the_weight():
    """As of an embedding that is the output layer, too: its two gradients are then added in one order."""
    x, table = leaves(drawn(2, 3), drawn(5, 3))
    assert backward(ops.sum(fused.linear(x, table.T)))[table].flags.c_contiguous


def test_norm_of_equal_numbers_is_exactly_zero():
    """Their mean has to be found to the last digit: what remains is divided by the root of epsilon."""
    (x,) = leaves(np.full((2, 768), 1000.0, np.float32))
    out = fused.layer_norm(x, Tensor(np.ones(768, np.float32)))
    np.testing.assert_array_equal(out.numpy(), 0.0)
