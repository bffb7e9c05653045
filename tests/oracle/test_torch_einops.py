"""einops on Tensors against einops on torch's tensors: values, and gradients for a random cotangent."""

import pytest
from einops import einsum, rearrange, reduce, repeat
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import Draw
from tests.oracle.test_torch_functions import assert_same
from tinyformer import backends

pytestmark = pytest.mark.oracle

CALLS = {
    "split heads": lambda x, n: rearrange(x, "a b (c n) -> a c b n", n=n),
    "join axes": lambda x, n: rearrange(x, "a b c -> (c a) b"),
    "transpose": lambda x, n: rearrange(x, "a b c -> c b a"),
    "new axis": lambda x, n: rearrange(x, "a b c -> a 1 (b c) ()"),
    "ellipsis": lambda x, n: rearrange(x, "... c -> c ..."),
    "sum": lambda x, n: reduce(x, "a b c -> b", "sum"),
    "mean": lambda x, n: reduce(x, "a b (c n) -> b c", "mean", n=n),
    "max": lambda x, n: reduce(x, "a b (c n) -> a n", "max", n=n),
    "min": lambda x, n: reduce(x, "a b c -> a 1 c", "min"),
    "mean of everything": lambda x, n: reduce(x, "a b c -> ", "mean"),
    "repeat along a new axis": lambda x, n: repeat(x, "a b c -> a n b c", n=n),
    "repeat elements": lambda x, n: repeat(x, "a b c -> a (b n) c", n=n),
    "stack a list": lambda x, n: rearrange([x, x + x], "two a b c -> (a two) b c"),
}
SUMS = {
    "matrix product": ("a b, b c -> a c", "ab", "bc"),
    "transposed product": ("a b, c b -> c a", "ab", "cb"),
    "projection": ("a b c, c d -> a b d", "abc", "cd"),
    "attention scores": ("a b c e, a b d e -> a b c d", "abce", "abde"),
    "outer product": ("a, b -> b a", "a", "b"),
    "element by element": ("a b, b -> a b", "ab", "b"),
    "inner product": ("a b, a b ->", "ab", "ab"),
    "an axis that only one has, summed": ("a b, c -> a", "ab", "c"),
    "three operands": ("a b, b c, c d -> d a", "ab", "bc", "cd"),
    "one operand": ("a b c -> c a", "abc"),
}


@pytest.mark.parametrize("name", CALLS)
@given(data=st.data())
def test_einops_call_equals_torch(name, data):
    draw = Draw(backends.get("numpy"), data)
    a, b, c, n = draw.sizes(4)

    def call(x):
        return CALLS[name](x, n)

    assert_same(call, call, [draw.normal(a, b, c * n)], draw.random)


@pytest.mark.parametrize("name", SUMS)
@given(data=st.data())
def test_einsum_equals_torch(name, data):
    draw = Draw(backends.get("numpy"), data)
    pattern, *operands = SUMS[name]
    lengths = dict(zip("abcde", draw.sizes(5)))

    def call(*tensors):
        return einsum(*tensors, pattern)

    arrays = [draw.normal(*(lengths[axis] for axis in axes)) for axes in operands]
    assert_same(call, call, arrays, draw.random)
