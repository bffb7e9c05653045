"""CuPy's cross-entropy against the composed function in float64."""

import numpy as np
import pytest

from tests.backends.on_cupy import DTYPES, assert_repeatable, caught, compare, drawn, plant, unwaited
from tinyformer import Tensor, backward, fused

TOLERANCE = {"float32": 4e-6, "bfloat16": 2**-7}  # bfloat16: the gradient is rounded, and again times what comes in
SHAPES = [(1, 2), (3, 5), (2, 7, 65), (40, 8), (9, 1000), (3, 5003), (1, 50257)]


def cross_entropy(shape, *, weighted=True, kind="int64", **settings):
    random = np.random.default_rng(6)
    targets = random.integers(0, shape[-1], shape[:-1]).astype(kind)
    weights = random.uniform(0.0, 2.0, shape[:-1]).astype(np.float32) if weighted else None

    def build(function, to):
        return lambda x: function(x, to(targets), None if weights is None else to(weights), **settings)

    return build


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cross_entropy(shape, smoothing, dtype, cupy_backend):
    build = cross_entropy(shape, total=7.0, smoothing=smoothing)
    compare(cupy_backend, "cross_entropy", build, [drawn(*shape, scale=4)], dtype, tolerance=TOLERANCE)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["int32", "int64", "uint8", "int16"])
def test_totals_that_are_not_given_and_kinds_of_targets(kind, weighted, cupy_backend):
    build = cross_entropy((6, 50), weighted=weighted, kind=kind)
    compare(cupy_backend, "cross_entropy", build, [drawn(6, 50)], "float32", tolerance=TOLERANCE)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [40, 51, 5003])
def test_logits_that_begin_anywhere(size, dtype, cupy_backend):
    """Overwritten, where threads read 128 bits at a time; and not, where the gradient begins elsewhere."""
    for overwrite in (True, False):
        build = cross_entropy((5, size), total=5.0, overwrite=overwrite)
        arguments = cupy_backend, "cross_entropy", build, [drawn(5, size)], dtype
        compare(*arguments, layout="misaligned", tolerance=TOLERANCE)


@pytest.mark.parametrize("overwrite", [False, True])
def test_only_what_may_be_is_overwritten(overwrite, cupy_backend):
    given = drawn(6, 50).astype(np.float32)
    logits = Tensor(cupy_backend.from_host(given), requires_grad=True)
    targets = cupy_backend.from_host(np.arange(6))
    gradient = backward(fused.cross_entropy(logits, targets, overwrite=overwrite))[logits]
    p = np.exp(given.astype(np.float64))
    expected = (p / p.sum(axis=1, keepdims=True) - np.eye(50)[:6]) / 6
    np.testing.assert_allclose(cupy_backend.to_host(gradient), expected, atol=1e-7)
    np.testing.assert_allclose(logits.numpy(), expected if overwrite else given, atol=1e-7)


def test_logits_that_are_not_contiguous(cupy_backend):
    inner = cross_entropy((6, 30), total=6.0)

    def turned(function, to):
        return lambda x: inner(function, to)(x.T)

    compare(cupy_backend, "cross_entropy", turned, [drawn(30, 6)], "float32", tolerance=TOLERANCE)


def test_large_logits(cupy_backend):
    x = np.array([[1e4, 9999.0, -1e4], [-3e38, 3e38, 0.0]])

    def build(function, to):
        return lambda x: function(x, to(np.array([1, 1])), total=2.0)

    compare(cupy_backend, "cross_entropy", build, [x], "float32", tolerance=TOLERANCE)


def test_targets_outside_are_read_nowhere_and_reported(cupy_backend):
    logits = Tensor(cupy_backend.from_host(np.zeros((2, 3), np.float32)), requires_grad=True)
    with pytest.raises(IndexError, match="targets"):
        fused.cross_entropy(logits, cupy_backend.from_host(np.array([-(5 << 20), 5 << 20]))).numpy()


@pytest.mark.parametrize(("targets", "weights"), [(3, None), (1, None), (2, 3)])
def test_each_row_has_a_target_and_a_weight(targets, weights, cupy_backend):
    """No row is read that is not there."""
    logits = Tensor(cupy_backend.from_host(np.zeros((2, 3), np.float32)))
    weights = None if weights is None else cupy_backend.from_host(np.ones(weights, np.float32))
    with pytest.raises(ValueError, match="cross_entropy of shapes"):
        fused.cross_entropy(logits, cupy_backend.from_host(np.zeros(targets, int)), weights, total=1.0)


def test_targets_without_a_weight_have_no_mean(cupy_backend):
    logits, targets, weights = (
        cupy_backend.from_host(np.zeros(s, k)) for s, k in (((2, 3), "f4"), (2, int), (2, "f4"))
    )
    with pytest.raises(ValueError, match="no target has a weight"):
        fused.cross_entropy(Tensor(logits), targets, weights)


def test_many_rows_are_added_up(cupy_backend):
    """More than the block that does it has threads."""
    build = cross_entropy((2500, 3), total=100.0)
    compare(cupy_backend, "cross_entropy", build, [drawn(2500, 3)], "float32", tolerance=TOLERANCE)


def test_nothing_waits_for_the_device(cupy_backend):
    """Nor in softmax and norms."""
    logits, weights, ones = (cupy_backend.from_host(np.ones(shape, np.float32)) for shape in ((4, 6), 4, 6))
    targets, mask = cupy_backend.from_host(np.zeros(4, int)), cupy_backend.from_host(np.ones((4, 1), bool))
    x, ones = Tensor(logits, requires_grad=True), Tensor(ones, requires_grad=True)
    with unwaited():
        y = fused.layer_norm(fused.rms_norm(x, ones), ones, ones, x)
        backward(fused.cross_entropy(fused.softmax(y, mask), targets, weights, total=3.0, overwrite=True))
    with pytest.raises(AssertionError), unwaited():
        fused.cross_entropy(x, targets, weights)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_bits_every_time(dtype, cupy_backend):
    build = cross_entropy((20, 1100), total=7.0, smoothing=0.1)
    assert_repeatable(cupy_backend, "cross_entropy", build, [drawn(20, 1100)], dtype)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("column + i == target ? p - hit : p", "p"),
        (" - spread;", ";"),
        ("weights ? weights[row] : 1.0f", "1.0f"),
        ("float wanted = to_float(logits[target]);", "float wanted = to_float(logits[0]);"),
        ("log_all * smoothing;", "log_all;"),
        ("row < rows; row += blockDim.x", "row < blockDim.x; row += blockDim.x"),
        ("g.at[i] *= scale;", ""),
        ("(threadIdx.x == 0) nats[row] = weight *", "(threadIdx.x == 0) nats[row] ="),
        ("first = threadIdx.x * PACK - (whole ? beyond(logits) : 0)", "first = threadIdx.x * PACK"),
    ],
)
def test_a_planted_bug_is_caught(right, wrong, cupy_backend, monkeypatch):
    from tinyformer.backends.cupy import loss

    build = cross_entropy((1100, 9), total=7.0, smoothing=0.1)
    arguments = cupy_backend, "cross_entropy", build, [drawn(1100, 9)], "float32"
    compare(*arguments, tolerance=TOLERANCE)
    plant(monkeypatch, loss, right, wrong)
    with caught():
        compare(*arguments, tolerance=TOLERANCE)
