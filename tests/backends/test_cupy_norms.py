"""CuPy's norms against the composed functions in float64."""

import numpy as np
import pytest

from tests.backends.on_cupy import DTYPES, assert_repeatable, caught, compare, drawn, one_misaligned, plant, results
from tinyformer import Tensor, fused

TOLERANCE = {"float32": 4e-6, "bfloat16": (2.0**-8, 1e-5)}  # bfloat16: results are rounded once, sums are float32
SHAPES = [  # with and without 128-bit reads, of a warp and of a block, for each number of reads
    (1, 3),
    (5, 8),
    (3, 2, 64),
    (9, 100),
    (70, 24),
    (6, 768),
    (2, 1024),
    (3, 1025),
    (2, 1544),
    (1, 9000),
    (1, 16384),
]


def norm(biased, added):
    """A norm of x, its weight, and what of bias and residual there is."""
    names = [name for name, there in (("bias", biased), ("residual", added)) if there]

    def build(function, to):
        return lambda x, weight, *others: function(x, weight, **dict(zip(names, others)), epsilon=1e-3)

    return build


def inputs(shape, *, biased, added, scale=1.0):
    width = shape[-1]
    arrays = [drawn(*shape, scale=scale), 1.0 + 0.3 * drawn(width, seed=2)]
    return arrays + [drawn(width, seed=3)] * biased + [drawn(*shape, seed=4)] * added


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("name", "biased", "added"),
    [("layer_norm", True, False), ("layer_norm", False, True), ("rms_norm", False, False), ("rms_norm", False, True)],
)
def test_norm(name, biased, added, shape, dtype, cupy_backend):
    arrays = inputs(shape, biased=biased, added=added, scale=3.0)
    compare(cupy_backend, name, norm(biased, added), arrays, dtype, tolerance=TOLERANCE)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_rows_of_one_number(name, dtype, cupy_backend):
    """A layer norm makes it 0; all but a rounding of its gradient is 0, too."""
    arrays = inputs((5, 1), biased=False, added=False)
    found, expected = results(cupy_backend, name, norm(False, False), arrays, dtype)
    for ours, theirs in zip(found, expected):
        np.testing.assert_allclose(ours, theirs, rtol=2.0**-8, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(50, 64), (20, 1032)])
def test_more_rows_than_blocks(shape, dtype, cupy_backend, monkeypatch):
    from tinyformer.backends.cupy import norms

    monkeypatch.setattr(norms, "_NARROW_BLOCKS", 2)
    monkeypatch.setattr(norms, "_WIDE_BLOCKS", 3)
    arrays = inputs(shape, biased=True, added=True)
    compare(cupy_backend, "layer_norm", norm(True, True), arrays, dtype, tolerance=TOLERANCE)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_over_many_blocks(dtype, cupy_backend):
    """More than the second stage has threads for."""
    arrays = inputs((700, 16), biased=True, added=False)
    compare(cupy_backend, "layer_norm", norm(True, False), arrays, dtype, tolerance=TOLERANCE)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [64, 1032])
def test_rows_that_begin_anywhere(width, dtype, cupy_backend):
    arrays = inputs((6, width), biased=True, added=True)
    settings = {"layout": "misaligned", "tolerance": TOLERANCE}
    compare(cupy_backend, "layer_norm", norm(True, True), arrays, dtype, **settings)


@pytest.mark.parametrize("layout", one_misaligned(5))
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_array_that_begins_anywhere(dtype, layout, cupy_backend):
    arrays = inputs((6, 64), biased=True, added=True)
    compare(cupy_backend, "layer_norm", norm(True, True), arrays, dtype, TOLERANCE, layout=layout)


@pytest.mark.parametrize("layout", [("plain",) * i + ("turned",) + ("plain",) * (4 - i) for i in (0, 3, 4)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_are_not_contiguous(dtype, layout, cupy_backend):
    arrays = inputs((6, 64), biased=True, added=True)
    compare(cupy_backend, "layer_norm", norm(True, True), arrays, dtype, TOLERANCE, layout=layout)


@pytest.mark.parametrize(("shape", "more"), [((1, 16385), (1, 16385)), ((3, 8), (8,))])
def test_what_the_kernel_cannot_do_is_left_to_the_definition(shape, more, cupy_backend):
    """Rows that are too long, and a residual that is repeated."""
    arrays = drawn(*shape), np.ones(shape[-1]), drawn(*more, seed=4)
    x, weight, residual = (Tensor(cupy_backend.from_host(array.astype(np.float32))) for array in arrays)
    total = (x + residual).numpy().astype(np.float64)
    expected = total / np.sqrt((total**2).mean(axis=-1, keepdims=True))
    np.testing.assert_allclose(fused.rms_norm(x, weight, residual).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("added", [None, 0.3])
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
@pytest.mark.parametrize("value", [1000.0, 0.1])
@pytest.mark.parametrize("width", [7, 768, 1544])
def test_equal_numbers_have_exactly_their_mean(width, value, name, added, cupy_backend):
    def full(shape, number):
        return Tensor(cupy_backend.from_host(np.full(shape, number, np.float32)))

    residual = None if added is None else full((2, width), added)
    found = fused.registry[name](full((2, width), value), full(width, 1), residual=residual, epsilon=1e-12).numpy()
    np.testing.assert_allclose(found, 0.0 if name == "layer_norm" else 1.0, atol=0.0 if name == "layer_norm" else 1e-6)


def test_a_small_signal_on_a_large_offset(cupy_backend):
    arrays = [drawn(4, 48) + 1e3, np.ones(48)]
    found, expected = results(cupy_backend, "layer_norm", norm(False, False), arrays, "float32")
    np.testing.assert_allclose(found[0], expected[0], atol=2e-4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [40, 1032])
def test_the_same_bits_every_time(width, dtype, cupy_backend):
    arrays = inputs((70, width), biased=True, added=True)
    assert_repeatable(cupy_backend, "layer_norm", norm(True, True), arrays, dtype)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("kept[k].at[i] += more.at[i]", ""),
        ("n.at[i] += more.at[i]", ""),
        ("sum += kept[k].at[i] - first", "sum += kept[k].at[i]"),
        ("column + i < width ? away * away : 0.0f", "away * away"),
        ("- mean_slope -", "-"),
        ("- n.at[i] * mean_product", ""),
        ("mean_slope += slope;", "mean_slope += g.at[i];"),
        ("sums[0][k].at[i] += g.at[i] * n.at[i];", "sums[0][k].at[i] += g.at[i];"),
        ("y < blockDim.y; ++y", "y < 1; ++y"),
        ("row += (long long)gridDim.x * blockDim.y", "row += 1LL << 40"),
        ("block += WARP", "block += 1 << 20"),
        (
            "1.0f / sqrtf(row_sum(squares, scratch) / width + epsilon)",
            "1.0f / sqrtf(row_sum(squares, scratch) / width)",
        ),
    ],
)
def test_a_planted_bug_is_caught(right, wrong, cupy_backend, monkeypatch):
    from tinyformer.backends.cupy import norms

    monkeypatch.setattr(norms, "_NARROW_BLOCKS", 40)
    arrays = inputs((700, 21), biased=True, added=True)
    arguments = cupy_backend, "layer_norm", norm(True, True), arrays, "float32"
    compare(*arguments, tolerance=TOLERANCE)
    plant(monkeypatch, norms, right, wrong)
    with caught():
        compare(*arguments, tolerance=TOLERANCE)
