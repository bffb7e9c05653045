"""Rotary positions: pairs of channels turned by the angles of their position, in one pass.

Read before: `kernels.py`. Read next: `rotary.cu`.
"""

from __future__ import annotations

import cupy
import numpy as np

from ..contract import Kernel
from .launch import REALS, Source

_SOURCE = Source("rotary.cu")
_THREADS = 256
_LARGEST = 1 << 31  # elements, so that places are counted in 32 bits


def _turned(x, cos, sin, sign):
    """x turned, `b h t c`, and laid out as `b t h c`."""
    b, h, t, c = x.shape
    itemsize, half = x.dtype.itemsize, c // 2
    if x.strides[-1] != itemsize:
        x = cupy.ascontiguousarray(x)
    strides = [x.strides[axis] // itemsize for axis in (0, 1, 2)]
    size = 16 // itemsize
    lies_well = [x.data.ptr % 16 == 0, half % size == 0, *(stride % size == 0 for stride in strides)]
    packed = all(lies_well)
    pieces = b * h * t * half // (size if packed else 1)
    out = cupy.empty((b, t, h, c), x.dtype)
    arguments = (x, out, cupy.ascontiguousarray(cos), cupy.ascontiguousarray(sin), *map(np.int32, (h, t, half)))
    arguments += (np.uint32(pieces), *map(np.int64, strides), np.int32(packed), np.float32(sign))
    wide = {"FLOAT_ANGLES": 1} if cos.dtype == np.float32 else {}
    _SOURCE.launch("rotary", x.dtype, -(-pieces // _THREADS), _THREADS, arguments, **wide)
    return out.transpose(0, 2, 1, 3)


def _forward(xp, x, cos, sin):
    return _turned(x, cos, sin, 1.0), (cos, sin)


def _backward(xp, saved, g):
    """A rotation's transpose turns the other way."""
    return _turned(g, *saved, -1.0), None, None


def _supports(x, cos, sin):
    if x.dtype.name not in REALS or x.ndim != 4 or x.shape[3] % 2 or x.size >= _LARGEST:
        return False
    angles = (x.shape[2], x.shape[3] // 2)
    same = cos.shape == sin.shape == angles and cos.dtype == sin.dtype
    return same and cos.dtype in (x.dtype, np.dtype(np.float32))


rotary = Kernel(_forward, _backward, _supports)
