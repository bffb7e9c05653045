"""Dropout, by truth values that are drawn on the spot, or that lie in memory.

A mask that is drawn where it is used costs arithmetic. One in memory costs a byte an element to write, and another to
read in either direction.

Read before: `random.py`, `kernels.py`. Read next: `dropout.cu`.
"""

from __future__ import annotations

import cupy
import numpy as np

from ..contract import Kernel
from .launch import REALS, Source
from .random import THREADS, PhiloxMask

_SOURCE = Source("dropout.cu")


def _dropped(x, keep, rate):
    """x / (1 - rate) where it is kept, else 0."""
    x = cupy.ascontiguousarray(x)
    out, factor = cupy.empty(x.shape, x.dtype), np.float32(1.0 / (1.0 - rate))
    if isinstance(keep, PhiloxMask):
        place = keep.keys, np.int32(keep.rows), np.int64(keep.count), np.uint64(keep.start), np.uint32(keep.threshold)
        _SOURCE.launch("dropout_drawn", x.dtype, keep.grid, THREADS, (x, out, *place, factor))
    else:
        grid = -(-x.size // (16 * THREADS))
        arguments = (x, out, cupy.ascontiguousarray(keep), np.int64(x.size), factor)
        _SOURCE.launch("dropout_read", x.dtype, grid, THREADS, arguments)
    return out


def _forward(xp, x, keep, *, rate):
    """Keeps the mask alone."""
    return _dropped(x, keep, rate), (keep, rate)


def _backward(xp, saved, g):
    return _dropped(g, *saved), None


def _supports(x, keep, *, rate):
    if x.dtype.name not in REALS or keep is None or tuple(keep.shape) != x.shape:
        return False
    return isinstance(keep, PhiloxMask) or (isinstance(keep, cupy.ndarray) and keep.dtype == bool)


dropout = Kernel(_forward, _backward, _supports)
