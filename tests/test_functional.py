"""Values of the composed functions and their kernels: against closed formulas, and where a careless one overflows.

The other side is Python's mathematics or NumPy in float64, with the sums of exponentials taken by `np.logaddexp`.
"""

import math
import statistics

import numpy as np
import pytest

from tests import plain
from tinyformer import Tensor, backends, backward, functional, fused, ops

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


@pytest.fixture(params=TOLERANCE)
def dtype(request):
    return request.param


@pytest.fixture(params=["composed", "fused"])
def path(request):
    """Functions by name: the definitions, or the kernels where the backend has one."""
    composed = vars(functional)
    return (composed | fused.registry if request.param == "fused" else composed).__getitem__


def exactly(array, dtype):
    """Rounded to what both precisions hold."""
    return np.asarray(array).astype(dtype).astype(np.float64)


def tensor(xp, array, dtype):
    return Tensor(xp.from_host(array.astype(dtype)), requires_grad=True)


def assert_close(found, expected, dtype):
    found = found.numpy() if isinstance(found, Tensor) else np.asarray(found)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


ELEMENTWISE = {
    "sigmoid": ("sigmoid", {}, plain.sigmoid),
    "silu": ("silu", {}, plain.ACTIVATIONS["silu"]),
    "relu": ("relu", {}, plain.ACTIVATIONS["relu"]),
    "gelu": ("gelu", {}, plain.ACTIVATIONS["gelu"]),
    "exact gelu": ("gelu", {"approximate": False}, plain.ACTIVATIONS["gelu-exact"]),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_activation_is_its_formula_also_far_out(name, xp, dtype, path):
    function, settings, formula = ELEMENTWISE[name]
    x = exactly([*np.linspace(-8.0, 8.0, 161), -1e3, 1e3], dtype)
    assert_close(path(function)(tensor(xp, x, dtype), **settings), plain.elementwise(formula, x), dtype)


def test_exact_gelu_in_single_precision(path):
    """Against Python's error function, as exact as single precision allows: three halves of its step below 1."""
    x = np.linspace(-8, 8, 20001, dtype=np.float32)
    normal = np.array([0.5 * math.erfc(-v / math.sqrt(2.0)) for v in x.tolist()])
    found = path("gelu")(Tensor(x), approximate=False).numpy()
    assert np.abs(found / np.where(x == 0, 1, x) - np.where(x == 0, 0, normal)).max() < 1.5 * 2**-23


@pytest.mark.parametrize("size", [1.0, 3e-3], ids=["usual", "where the epsilon decides"])
@pytest.mark.parametrize("settings", [{}, {"epsilon": 0.1}], ids=["default", "0.1"])
def test_norms_are_their_formulas(settings, size, xp, dtype, path):
    rng = np.random.default_rng(0)
    x = exactly(rng.standard_normal((4, 6)) * size, dtype)
    weight, bias = exactly(rng.standard_normal((2, 6)), dtype)
    layer, root = np.empty_like(x), np.empty_like(x)
    for i, row in enumerate(x.tolist()):
        variance = statistics.pvariance(row) + settings.get("epsilon", 1e-5)
        square = statistics.fmean(element**2 for element in row) + settings.get("epsilon", 1e-6)
        layer[i] = (x[i] - statistics.fmean(row)) / variance**0.5
        root[i] = x[i] / square**0.5
    x, weight, bias = (tensor(xp, array, dtype) for array in (x, weight, bias))
    assert_close(path("layer_norm")(x, weight, bias, **settings), layer * weight.numpy() + bias.numpy(), dtype)
    assert_close(path("layer_norm")(x, weight, **settings), layer * weight.numpy(), dtype)
    assert_close(path("rms_norm")(x, weight, **settings), root * weight.numpy(), dtype)


def test_layer_norm_of_a_small_signal_on_a_large_offset(xp, dtype, path):
    """E[x²] - E[x]² would lose it; what is left is the rounding of a mean of 1000."""
    x = exactly(np.random.default_rng(0).standard_normal((4, 48)) + 1e3 * np.array([[1], [-1], [1], [-1]]), dtype)
    expected = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    found = path("layer_norm")(tensor(xp, x, dtype), Tensor(xp.ones(48, dtype=getattr(xp, dtype))))
    np.testing.assert_allclose(found.numpy(), expected, atol=8e3 * np.finfo(dtype).eps)


# Scores and logits for which exp without the maximum subtracted is 0/0 or inf/inf in either precision.
LARGE = np.array(
    [
        [1000.0, 999.0, 998.5, -1000.0],
        [-1000.0, -999.0, -1001.0, -998.5],
        [-1000.0, 1000.0, 0.0, 1000.0],
        [0.0, -1.0, 1.0, 0.5],
    ]
)
SHOWN = np.array([[False, True, True, True], [True, True, True, False], [True, False, False, False], [True] * 4])
G = np.random.default_rng(0).integers(-8, 9, LARGE.shape) / 8.0  # the gradient that comes in


def log_softmax(x):
    return x - np.logaddexp.reduce(x, axis=-1, keepdims=True)


def gradient(out, leaf, dtype):
    """Of the output with respect to a leaf, on the host."""
    xp = leaf.backend
    return xp.to_host(backward(out, xp.from_host(G.astype(dtype)) if out.shape else None)[leaf])


@pytest.mark.parametrize("masked", [False, True])
def test_softmax_of_large_numbers(masked, xp, dtype, path):
    """With a mask, the largest number may be a hidden one."""
    x = tensor(xp, LARGE, dtype)
    out = path("softmax")(x, xp.from_host(SHOWN) if masked else None)
    p = np.exp(log_softmax(np.where(SHOWN, LARGE, -np.inf) if masked else LARGE))
    assert_close(out, p, dtype)
    assert_close(gradient(out, x, dtype), p * (G - np.sum(p * G, axis=1, keepdims=True)), dtype)


def test_log_softmax_of_large_numbers(xp, dtype):
    x = tensor(xp, LARGE, dtype)
    out, expected = functional.log_softmax(x), log_softmax(LARGE)
    assert_close(out, expected, dtype)
    assert_close(gradient(out, x, dtype), G - np.exp(expected) * np.sum(G, axis=1, keepdims=True), dtype)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_large_logits(smoothing, xp, dtype, path):
    x, targets, weights = tensor(xp, LARGE, dtype), np.array([0, 1, 0, 2]), np.array([1.0, 0.0, 0.5, 2.0])
    out = path("cross_entropy")(x, xp.from_host(targets), xp.from_host(weights.astype(dtype)), smoothing=smoothing)
    log_p, wanted = log_softmax(LARGE), np.eye(4)[targets] * (1 - smoothing) + smoothing / 4
    assert_close(out, np.sum(-log_p * wanted * weights[:, None]) / 3.5, dtype)
    assert_close(gradient(out, x, dtype), (np.exp(log_p) - wanted) * weights[:, None] / 3.5, dtype)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_with_large_scores(causal, masked, xp, dtype, path):
    """The scores are whole numbers up to about 3000, exact in either precision; some of the largest are hidden."""
    rng = np.random.default_rng(0)
    shape = (2, 2, 70, 4)  # more than one block of the kernel's queries
    q, k = rng.integers(-40, 41, (2, *shape)).astype(np.float64)
    v = exactly(rng.standard_normal(shape), dtype)
    shown = rng.random((2, 1, 1, 70)) < 0.5 if masked else np.ones((2, 1, 1, 70), bool)
    visible = np.broadcast_to(shown & (np.tri(70, dtype=bool) if causal else True), (2, 2, 70, 70))
    expected = plain.attend(q, k, v, visible=visible, factor=np.ones(visible.shape), scale=1.0)
    leaves = [tensor(xp, array, dtype) for array in (q, k, v)]
    out = path("attention")(*leaves, xp.from_host(shown) if masked else None, causal=causal, scale=1.0)
    assert_close(out, expected, dtype)
    for pulled in backward(out, xp.ones_like(out.array)).values():
        assert np.isfinite(xp.to_host(pulled)).all()


@pytest.mark.parametrize("level", [-3000.0, -70.0, 70.0, 3000.0])
def test_attention_with_scores_far_from_zero(level, xp, dtype, path):
    """A bias that all keys share changes nothing, though e to the power of it is no ordinary number."""
    leaves, shown, bias = attention_inputs(xp, dtype)
    q, k, v = (xp.to_host(leaf.array) for leaf in leaves)
    away = tensor(xp, np.full(bias.shape, level), dtype)
    factor = np.ones((2, 2, 70, 70))
    expected = plain.attend(q, k, v, visible=np.broadcast_to(xp.to_host(shown), factor.shape), factor=factor, scale=0.5)
    out = path("attention")(*leaves, shown, away)
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-12 if dtype == "float64" else 1e-3)


def test_attention_over_many_keys(xp, path):
    """More than the kernel keeps weights for: it computes them again for the gradient."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((2, 1, length, 2)) for length in (70, 600, 600)]
    shown, bias = xp.from_host(rng.random((2, 1, 1, 600)) < 0.7), rng.standard_normal((1, 1, 70, 600))
    results = []
    for attend in (path("attention"), functional.attention):
        leaves = [tensor(xp, array, "float64") for array in (*arrays, bias)]
        out = attend(*leaves[:3], shown, leaves[3], causal=True)
        pulled = backward(out, out.array)
        results.append([out.numpy(), *(xp.to_host(pulled[leaf]) for leaf in leaves)])
    for fast, composed in zip(*results):
        np.testing.assert_allclose(fast, composed, atol=1e-12)


def attention_inputs(xp, dtype, *, huge=0.0):
    """Two rows of 70 positions, of which the second is all padding from 40 on; a first query that sees nothing."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((2, 2, 70, 4)) for _ in range(3)]
    for array in arrays[1:]:
        array[1, :, 40:] += huge
    shown = np.ones((2, 1, 70, 70), bool)
    shown[1, ..., 40:] = shown[0, :, 0] = False
    bias = rng.standard_normal((1, 2, 70, 70))
    return [tensor(xp, array, dtype) for array in arrays], xp.from_host(shown), tensor(xp, bias, dtype)


@pytest.mark.parametrize("causal", [False, True])
def test_hidden_keys_and_values_change_nothing(causal, xp, dtype, path):
    """Bit for bit, forward and back, also where they are so large that they would swamp all else."""
    results = []
    for huge in (0.0, 1e30):
        leaves, shown, bias = attention_inputs(xp, dtype, huge=huge)
        out = path("attention")(*leaves, shown, bias, causal=causal)
        gradients = backward(out, out.array)
        results.append([xp.to_host(x) for x in (out.array, *(gradients[leaf] for leaf in (*leaves, bias)))])
    for usual, huge in zip(*results):
        np.testing.assert_array_equal(usual, huge)
    for pulled in results[0][2:4]:
        assert not pulled[1, :, 40:].any()


@pytest.mark.parametrize("causal", [False, True])
def test_a_query_that_sees_nothing_gets_zeros(causal, xp, dtype, path):
    leaves, shown, bias = attention_inputs(xp, dtype)
    out = path("attention")(*leaves, shown, bias, causal=causal)
    pulled = backward(out, xp.ones_like(out.array))[leaves[0]]
    for array in (out.numpy(), xp.to_host(pulled)):
        assert not array[0, :, 0].any()
        assert array[0, :, 2:].all()
        assert np.isfinite(array).all()


@pytest.mark.parametrize(
    ("changed", "shape"),
    [
        ("key", (2, 2, 5, 4)),
        ("value", (2, 2, 7, 4)),
        ("mask", (2, 1, 6, 7)),
        ("bias", (3, 2, 6, 6)),
        ("keep", (2, 2, 6, 7)),
    ],
)
def test_attention_of_shapes_that_do_not_fit(changed, shape, xp, path):
    """The kernel cuts its inputs into blocks, and a cut could hide that there was too much."""
    shapes = dict.fromkeys(("query", "key", "value"), (2, 2, 6, 4)) | dict.fromkeys(
        ("mask", "bias", "keep"), (2, 2, 6, 6)
    )
    inputs = [
        xp.ones(shape, dtype=xp.bool) if name in ("mask", "keep") else Tensor(xp.ones(shape))
        for name, shape in (shapes | {changed: shape}).items()
    ]
    with pytest.raises(ValueError, match="of shapes"):
        path("attention")(*inputs, dropout_rate=0.5)


def test_attention_does_not_mix_precisions(xp, path):
    leaves, shown, bias = attention_inputs(xp, "float32")
    inputs = [*leaves, shown, bias]
    for i in (0, 1, 2, 4):
        mixed = [ops.astype(x, dtype=xp.float64) if i == j else x for j, x in enumerate(inputs)]
        with pytest.raises(TypeError, match="do not mix"):
            path("attention")(*mixed)


def test_attention_with_a_mask_of_integers():
    """NumPy takes them for truth values, and the kernel leaves them to the definition."""
    (q, k, v), shown, _ = attention_inputs(backends.get("numpy"), "float64")
    found, expected = (fused.attention(q, k, v, mask).numpy() for mask in (shown.astype(np.int64), shown))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
