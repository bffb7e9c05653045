"""The feed-forward network's kernel against the composed function on NumPy in double precision."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import emulated
from tests.emulated import cublaslt as stand_in
from tinyformer import Tensor, backward, fused
from tinyformer.backends.cupy import cublaslt

on_cupy = pytest.importorskip("tests.backends.on_cupy")

REFUSED = {
    "nothing": 0,
    "gelu": 32,  # the bit of the gelus forward
    "slope": 64,
    "both": 96,
    "everything": 96 | cublaslt.BIAS | cublaslt.SUMS_A | cublaslt.SUMS_B,
}


@pytest.fixture
def xp(cupy_backend):
    return cupy_backend


@pytest.fixture(params=REFUSED)
def refused(request, xp):
    """What no algorithm can do, so that kernels of their own do it."""
    with stand_in.refusing(REFUSED[request.param]):
        yield request.param


def arrays(rows, d, f, biased, seed=0):
    drawn = on_cupy.drawn(rows * d + 2 * d * f + f + d, seed=seed)
    ends = np.cumsum([rows * d, d * f, d * f, f, d])
    parts = np.split(drawn, ends[:-1])
    shaped = [x.reshape(shape) for x, shape in zip(parts, ((1, rows, d), (d, f), (f, d), f, d))]
    shaped[1], shaped[2] = shaped[1] / d**0.5, shaped[2] / f**0.5
    return shaped if biased else shaped[:3]


def build(function, to):
    return lambda *inputs: function(*inputs, activation="gelu")


@given(data=st.data())
def test_values_and_gradients(xp, refused, data):
    rows, d, f = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 9)), 8 * data.draw(st.integers(1, 3))
    given = arrays(rows, d, f, data.draw(st.booleans()), data.draw(st.integers(0, 99)))
    on_cupy.compare(xp, "feed_forward", build, given, "bfloat16", tolerance={"bfloat16": 3e-2})


def test_repeatable(xp, refused):
    on_cupy.assert_repeatable(xp, "feed_forward", build, arrays(40, 16, 32, True), "bfloat16")


@pytest.mark.parametrize("biased", [True, False])
def test_the_epilogues_take_the_place_of_kernels(xp, biased):
    """Forward is two products and backward four, and nothing else: no launch."""
    products = stand_in.emulation().counts
    x, *weights = (Tensor(xp.from_host(a.astype("bfloat16")), requires_grad=True) for a in arrays(8, 16, 32, biased))
    gradient = xp.ones_like(x.array)
    counts = emulated.install().emulated.counts
    before, launches = products()["products"], counts["launches"]
    out = fused.feed_forward(x, *weights, activation="gelu")
    assert products()["products"] == before + 2
    backward(out, gradient)
    assert products()["products"] == before + 6
    assert counts["launches"] == launches


@pytest.mark.parametrize(
    ("dtype", "width", "activation"), [("float32", 8, "gelu"), ("bfloat16", 12, "gelu"), ("bfloat16", 8, "silu")]
)
def test_what_is_left_to_the_kernels_of_its_parts(xp, dtype, width, activation):
    inputs = [Tensor(xp.from_host(a.astype(dtype)), requires_grad=True) for a in arrays(3, 4, width, True)]
    assert fused.feed_forward(*inputs, activation=activation).node.name == "linear"


def test_without_the_library_its_parts_are_used(xp, monkeypatch):
    from tinyformer.backends.cupy import feed_forward

    monkeypatch.setattr(feed_forward, "library", lambda: None)
    inputs = [Tensor(xp.from_host(a.astype("bfloat16")), requires_grad=True) for a in arrays(3, 4, 8, True)]
    assert fused.feed_forward(*inputs, activation="gelu").node.name == "linear"


def test_a_bias_with_gaps(xp):
    x, up, down, up_bias, down_bias = (xp.from_host(a.astype("bfloat16")) for a in arrays(3, 4, 8, True))
    wide = xp.from_host(np.repeat(up_bias.get(), 2))
    results = [
        fused.feed_forward(*map(Tensor, (x, up, down, bias, down_bias)), activation="gelu").numpy()
        for bias in (up_bias, wide[::2])
    ]
    np.testing.assert_array_equal(*results)
