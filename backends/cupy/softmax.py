"""The softmax by itself; attention and cross-entropy have their own inside.

Read before: `norms.py`. Read next: `softmax.cu`, `loss.py`.
"""

from __future__ import annotations

import cupy
import numpy as np

from ..contract import Kernel
from .launch import REALS, Source

_SOURCE = Source("softmax.cu")
_WARP, _ROWS = 32, 4
_NARROW = 1024  # the longest line of a warp
_NO_PLACES = (*map(np.int32, (1, 1)), *map(np.int64, (0, 0, 0, 0)))


def _launch(kernel, x, arguments):
    size = x.shape[-1]
    rows = x.size // size
    narrow = size <= _NARROW
    threads = _WARP if narrow else min(512, _WARP * -(-size * x.dtype.itemsize // (16 * _WARP)))
    together = min(_ROWS, rows) if narrow else 1
    _SOURCE.launch(kernel, x.dtype, -(-rows // together), (threads, together), arguments)


def _places(mask, shape):
    """The mask with what the kernel is told of it: lengths of the second and third axis of four, and all strides."""
    mask = cupy.broadcast_to(mask, shape)
    if mask.ndim > 4:
        mask = cupy.ascontiguousarray(mask).reshape(-1, shape[-1])
    lengths, strides = (1, 1, 1, 1, *mask.shape)[-4:], (0, 0, 0, 0, *mask.strides)[-4:]
    return mask, (np.int32(lengths[1]), np.int32(lengths[2]), *map(np.int64, strides))


def _forward(xp, x, mask, *, axis):
    """Reads an element from memory, again from cache, and writes it: 4 bytes of bfloat16, 8 of float32.

    A mask is read where it lies, a byte an element of its own, however often it is repeated.
    """
    x = cupy.ascontiguousarray(x)
    out, size = cupy.empty(x.shape, x.dtype), x.shape[-1]
    mask, places = (None, _NO_PLACES) if mask is None else _places(mask, x.shape)
    _launch("softmax_forward", x, (x, mask, out, np.int64(x.size // size), np.int32(size), *places))
    return out, out


def _backward(xp, out, g):
    """Reads two elements, again from cache, and writes one: 6 bytes of bfloat16, 12 of float32."""
    gradient, size = cupy.empty(out.shape, out.dtype), out.shape[-1]
    arguments = (out, cupy.ascontiguousarray(g), gradient, np.int64(out.size // size), np.int32(size))
    _launch("softmax_backward", out, arguments)
    return gradient, None


def _supports(x, mask, *, axis):
    if x.dtype.name not in REALS or x.size == 0 or axis not in (-1, x.ndim - 1):
        return False
    return mask is None or (mask.dtype == bool and mask.ndim <= x.ndim)


softmax = Kernel(_forward, _backward, _supports)
