"""Rotary positions on the device, for heads that lie in memory as a linear map's outputs do, and otherwise."""

import numpy as np
import pytest

from tests.backends.on_cupy import DTYPES, TOLERANCE, assert_close, placed, plant
from tinyformer import Tensor, backward, functional, fused

SHAPES = [(1, 1, 1, 2), (2, 3, 5, 6), (2, 2, 9, 16), (2, 2, 3, 12), (3, 1, 4, 64), (2, 12, 7, 24), (1, 5, 70, 32)]
DTYPES_AND_ANGLES = [("float32", "float32"), ("bfloat16", "bfloat16"), ("bfloat16", "float32")]


def heads(xp, array, layout):
    """`b h t c` on the device, as it is placed there; as a third of a map's outputs; or as a part of longer rows."""
    b, h, t, c = array.shape
    if layout == "thirds":
        wide = xp.from_host(np.concatenate([array.transpose(0, 2, 1, 3).reshape(b, t, h * c)] * 3, axis=-1))
        return wide[..., h * c : 2 * h * c].reshape(b, t, h, c).transpose(0, 2, 1, 3)
    if layout == "longer rows":
        return xp.from_host(np.concatenate([array, array[..., :1]], axis=-1))[..., :c]
    return placed(xp, array, layout)


def check(xp, shape, dtype, angles, layout):
    random = np.random.default_rng(0)
    x, cotangent = random.standard_normal((2, *shape)).astype(DTYPES[dtype])
    cos, sin = random.standard_normal((2, shape[2], shape[3] // 2)).astype(DTYPES[angles])
    leaf = Tensor(x.astype(np.float64), requires_grad=True)
    out = functional.rotary(leaf, cos.astype(np.float64), sin.astype(np.float64))
    expected = out.array, backward(out, cotangent.astype(np.float64))[leaf]
    leaf = Tensor(heads(xp, x, layout), requires_grad=True)
    out = fused.rotary(leaf, xp.from_host(cos), xp.from_host(sin))
    assert out.node.name == "rotary", "the composed function ran"
    found = out.array, backward(out, heads(xp, cotangent, layout))[leaf]
    for array, right in zip(found, expected):
        assert array.dtype == DTYPES[dtype]
        assert array.transpose(0, 2, 1, 3).flags.c_contiguous  # as the next product wants it
        assert_close(xp.to_host(array), right, TOLERANCE[dtype])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtypes", DTYPES_AND_ANGLES, ids=str)
@pytest.mark.parametrize("layout", ["plain", "thirds", "misaligned", "longer rows", "turned"])
def test_rotary(cupy_backend, shape, dtypes, layout):
    check(cupy_backend, shape, *dtypes, layout)


def test_no_rows(cupy_backend):
    x, angles = np.ones((0, 2, 3, 4), np.float32), np.ones((3, 2), np.float32)
    assert fused.rotary(*(Tensor(cupy_backend.from_host(x)),), *[cupy_backend.from_host(angles)] * 2).shape == x.shape


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("a * c - b * s", "a * c + b * s"),
        ("place % heads", "(place + 1) % heads"),
        ("(long long)position * half + channel", "(long long)position * half"),
        ("sign * to_float", "to_float"),
        ("2 * half) + channel", "2 * half) + 0"),
    ],
)
def test_a_planted_bug_is_caught(cupy_backend, monkeypatch, right, wrong):
    from tinyformer.backends.cupy import rotary

    arguments = cupy_backend, (2, 3, 5, 16), "float32", "float32", "thirds"
    check(*arguments)
    plant(monkeypatch, rotary, right, wrong)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check(*arguments)
