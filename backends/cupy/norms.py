"""Norms of each position, the rows in registers, and sums over rows in two stages.

Kept are the inputs and two numbers a row, its mean and its reciprocal deviation: to compute a normalised row again is
free beside reading it, and what made the input, or the layer before, keeps that anyway.

Read before: `kernels.py`, `rows.cuh`. Read next: `norms.cu`.
"""

from __future__ import annotations

import cupy
import numpy as np

from ..contract import Kernel, of_one_dtype
from .launch import REALS, Source

_SOURCE = Source("norms.cu")
_WARP = 32
_NARROW, _WIDE = 1024, 16384  # the longest rows of a warp, and of a block: 32 numbers a thread
_ROWS = 4  # of a block, where each is a warp's
_NARROW_BLOCKS, _WIDE_BLOCKS = 4 * 132, 2 * 132  # that fill the 132 processors of an H100
_EACH = 4  # rows that are worth a line of partial sums


def _division(rows, width, dtype):
    """Threads of a row, rows of a block, and the reads of 128 bits that make up a thread's share of a row."""
    pack = 16 // dtype.itemsize
    narrow = width <= _NARROW
    threads = _WARP if narrow else min(512, _WARP * -(-width // (_WARP * pack)))
    return threads, min(_ROWS, rows) if narrow else 1, -(-width // (threads * pack))


def _forward(x, weight, bias, residual, epsilon, *, centred):
    x, weight, bias, residual = (None if a is None else cupy.ascontiguousarray(a) for a in (x, weight, bias, residual))
    width = x.shape[-1]
    rows = x.size // width
    threads, together, items = _division(rows, width, x.dtype)
    out = cupy.empty(x.shape, x.dtype)
    mean = cupy.empty(rows, np.float32) if centred else None
    reciprocal = cupy.empty(rows, np.float32)
    sizes = np.int32(rows), np.int32(width), np.float32(epsilon)
    arguments = (x, residual, weight, bias, out, mean, reciprocal, *sizes)
    _SOURCE.launch("norm_forward", x.dtype, -(-rows // together), (threads, together), arguments, ITEMS=items)
    return out, (x, residual, weight, mean, reciprocal, bias is not None)


def _layer_norm_forward(xp, x, weight, bias, residual, *, epsilon):
    """Reads an element once (twice with a residual) and writes it once: 4 bytes of bfloat16, 8 of float32."""
    return _forward(x, weight, bias, residual, epsilon, centred=True)


def _rms_norm_forward(xp, x, weight, residual, *, epsilon):
    """As much as layer norm."""
    return _forward(x, weight, None, residual, epsilon, centred=False)


def _backward(saved, g):
    """Reads ḡ and x (and the residual) and writes x̄: 6 bytes an element of bfloat16, 12 of float32.

    The partial sums are at most 528 x 2 rows of float32 (264 x 2 of wide ones), and one for each 16 (or 4) of x.
    """
    x, residual, weight, mean, reciprocal, biased = saved
    width = x.shape[-1]
    rows = x.size // width
    threads, together, items = _division(rows, width, x.dtype)
    blocks = min(-(-rows // (together * _EACH)), _NARROW_BLOCKS if width <= _NARROW else _WIDE_BLOCKS)
    out, grad_weight = cupy.empty(x.shape, x.dtype), cupy.empty(weight.shape, x.dtype)
    grad_bias = cupy.empty(weight.shape, x.dtype) if biased else None
    partial = cupy.empty((blocks, 2, width), np.float32)
    arrays = (cupy.ascontiguousarray(g), x, residual, weight, mean, reciprocal, out, partial)
    shared = together * width * 4 if together > 1 else 0
    arguments = (*arrays, np.int32(rows), np.int32(width))
    _SOURCE.launch("norm_backward", x.dtype, blocks, (threads, together), arguments, shared=shared, ITEMS=items)
    arguments = (partial, grad_weight, grad_bias, np.int32(blocks), np.int32(width))
    _SOURCE.launch("norm_sums", x.dtype, (-(-width // _WARP), 1 + biased), (_WARP, _WARP), arguments, ITEMS=items)
    return out, grad_weight, grad_bias, None if residual is None else out


def _layer_norm_backward(xp, saved, g):
    return _backward(saved, g)


def _rms_norm_backward(xp, saved, g):
    out, grad_weight, _, grad_residual = _backward(saved, g)
    return out, grad_weight, grad_residual


def _supports(x, weight, *others, **metadata):
    *bias, residual = others
    return (
        x.dtype.name in REALS
        and of_one_dtype(x, weight, *others)
        and x.size > 0
        and x.ndim > 0
        and x.shape[-1] <= _WIDE
        and all(array is None or array.shape == x.shape[-1:] for array in (weight, *bias))
        and (residual is None or residual.shape == x.shape)
    )


layer_norm = Kernel(_layer_norm_forward, _layer_norm_backward, _supports)
rms_norm = Kernel(_rms_norm_forward, _rms_norm_backward, _supports)
