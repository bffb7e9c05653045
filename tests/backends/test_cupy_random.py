"""Masks that the device draws, against NumPy's generator: bit for bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.backends.on_cupy import plant
from tinyformer import backends
from tinyformer.backends import Undrawn

NUMPY = backends.get("numpy")


@given(
    shapes=st.lists(
        st.lists(st.sampled_from([1, 2, 3, 4, 5, 16, 67, 130]), min_size=1, max_size=3), min_size=1, max_size=4
    ),
    by_rows=st.booleans(),
    probability=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 2**63),
)
def test_masks_are_numpys(cupy_backend, shapes, by_rows, probability, seed):
    """Several in a row, of sizes that are no multiple of a word's four numbers, or of a block's sixteen."""
    rows = range(3, 6) if by_rows else None
    device, host = (xp.generator(seed, 1, 7, rows=rows) for xp in (cupy_backend, NUMPY))
    for shape in shapes:
        shape = (3, *shape) if by_rows else tuple(shape)
        mask, expected = device.keep(shape, probability), host.keep(shape, probability)
        assert isinstance(mask, Undrawn)
        assert mask.shape == shape
        np.testing.assert_array_equal(cupy_backend.to_host(mask.drawn()), expected)


def test_masks_of_many_blocks_and_rows(cupy_backend):
    device, host = (xp.generator(0, rows=range(2)) for xp in (cupy_backend, NUMPY))
    for shape in ((2, 5003), (2, 3, 9001), (2, 3), (2, 4096)):  # the last begins amid a block of words
        np.testing.assert_array_equal(cupy_backend.to_host(device.keep(shape, 0.8).drawn()), host.keep(shape, 0.8))


def test_more_rows_than_the_grid_has(cupy_backend, monkeypatch):
    from tinyformer.backends.cupy import random

    monkeypatch.setattr(random, "_ROWS", 2)
    device, host = (xp.generator(0, rows=range(5)).keep((5, 20), 0.5) for xp in (cupy_backend, NUMPY))
    assert device.grid == (1, 2)
    np.testing.assert_array_equal(cupy_backend.to_host(device.drawn()), host)


def test_masks_without_elements(cupy_backend):
    for rows, shape in ((None, (0, 3)), (range(2), (2, 0)), (range(0), (0, 4))):
        generator = cupy_backend.generator(0, rows=rows)
        assert cupy_backend.to_host(generator.keep(shape, 0.5).drawn()).shape == shape


def test_keys_on_the_device_are_read_when_a_mask_is_drawn(cupy_backend):
    """So that a recorded step draws others each time."""
    keys = cupy_backend.from_host(cupy_backend.keys(0, 1, rows=range(2)))
    mask = cupy_backend.generator_of(keys).keep((2, 50), 0.5)
    for step in (1, 2):
        keys[...] = cupy_backend.from_host(cupy_backend.keys(0, step, rows=range(2)))
        expected = NUMPY.generator(0, step, rows=range(2)).keep((2, 50), 0.5)
        np.testing.assert_array_equal(cupy_backend.to_host(mask.drawn()), expected)


def test_a_single_key_draws_any_shape(cupy_backend):
    keys = cupy_backend.from_host(cupy_backend.keys(5))
    found = cupy_backend.generator_of(keys).keep((3, 7), 0.5).drawn()
    np.testing.assert_array_equal(cupy_backend.to_host(found), NUMPY.generator(5).keep((3, 7), 0.5))


def test_rows_must_be_those_of_the_streams(cupy_backend):
    with pytest.raises(ValueError, match="for 2 rows"):
        cupy_backend.generator(0, rows=range(2)).keep((3, 4), 0.5)


def test_new_weights_are_numpys(cupy_backend):
    device, host = (xp.generator(3, 1) for xp in (cupy_backend, NUMPY))
    for _ in range(2):
        found = cupy_backend.to_host(device.normal((3, 5), np.float32))
        np.testing.assert_array_equal(found, host.normal((3, 5), np.float32))


def test_a_stream_gives_one_kind_of_numbers(cupy_backend):
    stream = cupy_backend.generator(0)
    stream.normal((2,), np.float32)
    with pytest.raises(RuntimeError, match="one of their own"):
        stream.keep((2,), 0.5)
    stream = cupy_backend.generator(0)
    stream.keep((2,), 0.5)
    with pytest.raises(RuntimeError, match="one of their own"):
        stream.normal((2,), np.float32)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("c0 = block + 1", "c0 = block"),
        ("round < 10", "round < 7"),
        ("key1 += 0xBB67AE8584CAA73Bull", "key1 += 0x9E3779B97F4A7C15ull"),
        ("(16 * part)", "(48 - 16 * part)"),
        ("0xffffull) < threshold", "0xffffull) <= threshold"),
        ("4 * (long long)(start % 4)", "0"),
        ("start / 4 + group", "group"),
        ("keys[2 * row + 1]", "keys[1]"),
    ],
)
def test_a_planted_bug_is_caught(cupy_backend, monkeypatch, right, wrong):
    from tinyformer.backends.cupy import random

    def check():
        device, host = (xp.generator(0, rows=range(2)) for xp in (cupy_backend, NUMPY))
        for _ in range(4):
            masks = [generator.keep((2, 40021), 0.9) for generator in (device, host)]
            np.testing.assert_array_equal(cupy_backend.to_host(masks[0].drawn()), masks[1])

    check()
    plant(monkeypatch, random, right, wrong)
    with pytest.raises(AssertionError, match="not equal"):
        check()
