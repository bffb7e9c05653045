"""CuPy's softmax against the composed function in float64."""

import numpy as np
import pytest

from tests.backends.on_cupy import DTYPES, assert_repeatable, caught, compare, drawn, one_misaligned, plant, results
from tinyformer import Tensor, fused

TOLERANCE = {"float32": 4e-6, "bfloat16": 2**-7}  # bfloat16: the gradient is formed from a rounded result
SHAPES = [(1, 1), (3, 5), (2, 3, 8), (9, 77), (2, 3, 4, 64), (3, 1000), (2, 1025), (1, 5001)]


def softmax(mask=None, axis=-1):
    return lambda function, to: lambda x: function(x, None if mask is None else to(mask), axis=axis)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_softmax(shape, dtype, cupy_backend):
    compare(cupy_backend, "softmax", softmax(axis=len(shape) - 1), [drawn(*shape, scale=4)], dtype, tolerance=TOLERANCE)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "hiding",
    [(2, 3, 4, 21), (2, 1, 1, 21), (1, 1, 4, 21), (4, 1), (3, 1, 21), (2, 3, 4, 1), (21,), (1,), ()],
    ids=str,
)
def test_masks_are_broadcast(hiding, dtype, cupy_backend):
    """Some hide whole lines."""
    mask = np.random.default_rng(5).random(hiding) < 0.6
    compare(cupy_backend, "softmax", softmax(mask), [drawn(2, 3, 4, 21)], dtype, tolerance=TOLERANCE)


@pytest.mark.parametrize("hiding", [(2, 1, 2, 3, 9), (3, 1, 3, 1), (9,)], ids=str)
def test_masks_of_more_than_four_axes(hiding, cupy_backend):
    mask = np.random.default_rng(5).random(hiding) < 0.6
    compare(cupy_backend, "softmax", softmax(mask), [drawn(2, 3, 2, 3, 9)], "float32", tolerance=TOLERANCE)


def test_a_mask_with_strides_of_its_own(cupy_backend):
    mask = np.random.default_rng(5).random((21, 8)) < 0.6

    def build(function, to):
        return lambda x: function(x, to(mask)[:, ::2].T)

    compare(cupy_backend, "softmax", build, [drawn(3, 4, 21)], "float32", tolerance=TOLERANCE)


@pytest.mark.parametrize("width", [9, 1030])
def test_a_long_line_that_is_hidden_is_zeros(width, cupy_backend):
    mask = np.array([[True], [False]])
    found, _ = results(cupy_backend, "softmax", softmax(mask), [drawn(2, width)], "float32")
    assert not any(array[1].any() for array in found)
    assert all(array[0].any() for array in found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [13, 64, 1100])
@pytest.mark.parametrize("layout", ["misaligned", *one_misaligned(2)])
def test_lines_that_begin_anywhere(layout, width, dtype, cupy_backend):
    compare(cupy_backend, "softmax", softmax(), [drawn(5, width)], dtype, layout=layout, tolerance=TOLERANCE)


def test_large_scores_and_infinite_ones(cupy_backend):
    x = [[1e4, 9999.0, -1e4], [-3e38, -3e38, 3e38], [-np.inf, 0.0, -np.inf], [np.nan, 0.0, 1.0]]
    x = np.array([*x, [-3e38, -np.inf, -3e38]], np.float32)
    found = fused.softmax(Tensor(cupy_backend.from_host(x))).numpy()
    e = 1 / (1 + np.exp(-1.0))
    expected = [[e, 1 - e, 0], [0, 0, 1], [0, 1, 0], [np.nan] * 3, [0.5, 0, 0.5]]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("layout", [("turned", "plain"), ("plain", "turned")])
def test_lines_that_are_not_contiguous(layout, cupy_backend):
    compare(cupy_backend, "softmax", softmax(), [drawn(30, 6)], "float32", tolerance=TOLERANCE, layout=layout)


def test_long_lines_far_below_zero(cupy_backend):
    compare(cupy_backend, "softmax", softmax(), [drawn(2, 1100) - 300], "float32", tolerance=TOLERANCE)


def test_a_mask_of_numbers_is_left_to_the_definition(cupy_backend):
    x, mask = (cupy_backend.from_host(a) for a in (drawn(2, 5).astype(np.float32), np.arange(5) % 2 * 256))
    assert (fused.softmax(Tensor(x), mask).numpy() > 0).tolist() == [[False, True, False, True, False]] * 2


def test_along_another_axis_the_composed_function_runs(cupy_backend):
    out = fused.softmax(Tensor(cupy_backend.from_host(drawn(3, 4).astype(np.float32))), axis=0)
    np.testing.assert_allclose(out.numpy().sum(axis=0), 1.0, rtol=1e-6)


@pytest.mark.parametrize("width", [40, 1100])
def test_the_same_bits_every_time(width, cupy_backend):
    assert_repeatable(cupy_backend, "softmax", softmax(), [drawn(7, width)], "float32")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("row % n2 * stride2", "0"),
        ("row / n2 % n1 * stride1", "0"),
        ("row / n2 / n1 * stride0", "0"),
        ("* stride3", "* 1"),
        ("g.at[i] - sum", "g.at[i]"),
        ("sum *= __expf(largest - top);", ""),
        ("total.sum == 0.0f ? 0.0f :", ""),
        ("sum = row_sum(sum * __expf(largest - top), scratch);", "sum = row_sum(sum, scratch);"),
    ],
)
def test_a_planted_bug_is_caught(right, wrong, cupy_backend, monkeypatch):
    from tinyformer.backends.cupy import softmax as module

    masks = [np.random.default_rng(5).random(shape) < 0.5 for shape in ((2, 3, 4, 1), (2, 3, 4, 210))]

    def check():
        for mask in masks:
            compare(cupy_backend, "softmax", softmax(mask), [drawn(2, 3, 4, 210)], "float32", tolerance=TOLERANCE)

    check()
    plant(monkeypatch, module, right, wrong)
    with caught():
        check()
