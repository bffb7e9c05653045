"""Dropout on the device: masks drawn on the spot and masks in memory, against NumPy's."""

import numpy as np
import pytest

from tests.backends.on_cupy import DTYPES, LAYOUTS, compare, placed, plant
from tinyformer import Tensor, backends, backward, functional, fused

SHAPES = [(1, 1), (2, 5), (3, 16), (3, 3, 11), (2, 4100), (2, 8, 64)]
NUMPY = backends.get("numpy")


def by_mask(on_host, on_device, rate):
    """By a mask that lies, or is to be drawn, on either side."""

    def build(function, to):
        keep = on_host if function is functional.dropout else on_device
        return lambda x: function(x, keep, rate=rate)

    return build


@pytest.mark.parametrize("by_rows", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("before", "layout"), [(0, "plain"), (8, "misaligned"), (13, "turned"), (3, "plain")])
def test_drawn_masks(cupy_backend, shape, before, by_rows, dtype, layout):
    rows = range(shape[0]) if by_rows else None
    device, host = (xp.generator(4, rows=rows) for xp in (cupy_backend, NUMPY))
    for generator in (device, host):
        generator.keep((shape[0], before), 0.5)  # numbers that another layer took
    masks = host.keep(shape, 0.7), device.keep(shape, 0.7)
    x = np.random.default_rng(0).standard_normal(shape)
    compare(cupy_backend, "dropout", by_mask(*masks, 0.3), [x], dtype, layout=layout)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mask_layout", LAYOUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_masks_in_memory(cupy_backend, shape, dtype, layout, mask_layout):
    random = np.random.default_rng(0)
    keep = random.random(shape) < 0.5
    build = by_mask(keep, placed(cupy_backend, keep, mask_layout), 0.5)
    compare(cupy_backend, "dropout", build, [random.standard_normal(shape)], dtype, layout=layout)


@pytest.mark.parametrize("rows", [1, 2])
def test_more_rows_than_the_grid_has(cupy_backend, monkeypatch, rows):
    from tinyformer.backends.cupy import random

    monkeypatch.setattr(random, "_ROWS", rows)
    test_drawn_masks(cupy_backend, (5, 20), 3, True, "float32", "plain")


def test_no_mask_drops_nothing(cupy_backend):
    x = cupy_backend.from_host(np.ones((2, 3), np.float32))
    assert fused.dropout(Tensor(x), None, rate=0.5).array is x


def test_drawn_masks_reach_the_definition_as_arrays(cupy_backend):
    """In double precision, for which there is no kernel."""
    masks = [xp.generator(4).keep((2, 5), 0.5) for xp in (cupy_backend, NUMPY)]
    leaf = Tensor(cupy_backend.from_host(np.ones((2, 5))), requires_grad=True)
    out = fused.dropout(leaf, masks[0], rate=0.5)
    np.testing.assert_array_equal(out.numpy(), 2.0 * masks[1])
    gradient = backward(out, cupy_backend.from_host(np.ones((2, 5))))[leaf]
    np.testing.assert_array_equal(cupy_backend.to_host(gradient), 2.0 * masks[1])


def test_what_is_dropped_is_zero_whatever_it_was(cupy_backend):
    """One by one, and where 16 are taken at once."""
    for times in (1, 16):
        x = cupy_backend.from_host(np.array([np.nan, np.inf, 1.0] * times, np.float32))
        keep = cupy_backend.from_host(np.array([False, False, True] * times))
        out = fused.dropout(Tensor(x), keep, rate=0.5)
        np.testing.assert_array_equal(out.numpy(), [0.0, 0.0, 2.0] * times)


@pytest.mark.parametrize(
    ("right", "wrong", "drawn"),
    [
        ("start / 4 + group", "group", True),
        ("4 * (long long)(start % 4)", "0", True),
        ("x + row * count", "x", True),
        ("keys[2 * row], keys", "keys[0], keys", True),
        ("packs[i / size].at[i % size]", "packs[i / size].at[(i + 1) % size]", True),
        ("(pack.at[i] != 0) << i", "(pack.at[i] != 0) << (15 - i)", False),
        ("(keep[first + i] != 0) << i", "(keep[first] != 0) << i", False),
    ],
)
def test_a_planted_bug_is_caught(cupy_backend, monkeypatch, right, wrong, drawn):
    from tinyformer.backends.cupy import dropout

    x = np.random.default_rng(0).standard_normal((2, 4100))

    def check():
        device, host = (xp.generator(4, rows=range(2)) for xp in (cupy_backend, NUMPY))
        for generator in (device, host):
            generator.keep((2, 41), 0.5)
        keep = host.keep(x.shape, 0.7)
        mask = device.keep(x.shape, 0.7) if drawn else cupy_backend.from_host(keep)
        compare(cupy_backend, "dropout", by_mask(keep, mask, 0.3), [x], "float32")

    check()
    plant(monkeypatch, dropout, right, wrong)
    with pytest.raises(AssertionError, match="Not equal"):
        check()
