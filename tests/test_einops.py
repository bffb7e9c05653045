"""einops on Tensors: values equal einops on NumPy arrays, and gradients flow."""

import einops
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import Draw
from tinyformer import Tensor, check_gradients

LENGTHS = {"b": 2, "t": 3, "h": 2, "c": 4, "d": 5}


def shaped(draw, pattern):
    return draw.normal(*(LENGTHS[name] for name in pattern.split()))


CASES = {
    "split heads": ("b t d", lambda e, x: e.rearrange(x[..., :4], "b t (h c) -> b h t c", h=2)),
    "join heads": ("b h t c", lambda e, x: e.rearrange(x, "b h t c -> b t (h c)")),
    "ellipsis": ("b t d", lambda e, x: e.rearrange(x, "... d -> d ...")),
    "unit axes": ("b d", lambda e, x: e.rearrange(x, "b d -> b 1 d 1")),
    "list": ("b d", lambda e, x: e.rearrange([x, x * 2.0], "n b d -> b n d")),
    "sum": ("b t d", lambda e, x: e.reduce(x, "b t d -> d", "sum")),
    "mean": ("b t d", lambda e, x: e.reduce(x, "b t d -> b 1 d", "mean")),
    "max": ("b t d", lambda e, x: e.reduce(x, "b t d -> t", "max")),
    "min": ("b t d", lambda e, x: e.reduce(x, "b t d -> b", "min")),
    "repeat": ("b d", lambda e, x: e.repeat(x, "b d -> b n d", n=3)),
    "repeat inside": ("b d", lambda e, x: e.repeat(x, "b d -> (b n) d", n=3)),
    "matmul": ("b t d", lambda e, x: e.einsum(x, x, "b t d, b s d -> b t s")),
    "outer": ("b d", lambda e, x: e.einsum(x, x, "b d, t c -> t b c d")),
    "inner": ("b d", lambda e, x: e.einsum(x, x, "b d, b d -> ")),
    "transpose": ("b t d", lambda e, x: e.einsum(x, "b t d -> d b")),
    "ellipsis in a product": ("b t d", lambda e, x: e.einsum(x, x[0], "... t d, s d -> ... t s")),
    "ellipses of two ranks": ("b t d", lambda e, x: e.einsum(x, x[0], "... d, ... d -> d ...")),
    "three": ("b d", lambda e, x: e.einsum(x, x, x, "a d, b d, b c -> a c")),
    "hadamard": ("b t d", lambda e, x: e.einsum(x, x, "b t d, b t d -> b t d")),
}


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
def test_values_and_gradients(name, xp, data):
    pattern, function = CASES[name]
    x = shaped(Draw(xp, data), pattern)
    expected = function(einops, xp.to_host(x))
    np.testing.assert_allclose(function(einops, Tensor(x)).numpy(), expected, rtol=1e-12, atol=1e-12)
    check_gradients(lambda y: function(einops, y), x)


def test_what_is_not_available_says_so():
    x = Tensor(np.ones((2, 2)))
    with pytest.raises(ValueError, match="'prod' is not available on Tensors"):
        einops.reduce(x, "a b -> a", "prod")
    with pytest.raises(ValueError, match="diagonals are not available"):
        einops.einsum(x, "a a -> a")
