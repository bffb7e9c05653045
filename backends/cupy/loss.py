"""Cross-entropy, whose gradient is formed along with it, where the logits are if they may be overwritten.

Read before: `softmax.py`. Read next: `loss.cu`.
"""

from __future__ import annotations

import cupy
import numpy as np

from ..contract import Kernel
from .launch import REALS, Source

_SOURCE = Source("loss.cu")
_WARP, _LONGEST = 32, 512  # threads of a block, at least and at most
_BLOCKS = 8 * 132  # of 256 threads, which fill the 132 processors of an H100


def _threads(size, dtype):
    """Of a row: as few as let none wait for others that read once more."""
    packs = -(-size * dtype.itemsize // 16)
    return _WARP * -(-packs // (_WARP * -(-packs // _LONGEST)))


def _forward(xp, logits, targets, weights, *, total, smoothing, overwrite):
    """Reads a logit from memory, again from cache, and writes its gradient: 4 bytes of bfloat16, 8 of float32.

    The loss is float32, whatever the logits are. Only a total that is not given, of weights that are, is waited for.
    """
    size = logits.shape[-1]
    xp.check_indices(targets, size, "targets")
    targets = cupy.ascontiguousarray(targets).reshape(logits.size // size)
    if targets.dtype.name not in ("int32", "int64"):
        targets = targets.astype(np.int64)
    if weights is not None:
        weights = cupy.ascontiguousarray(weights).reshape(targets.size).astype(np.float32, copy=False)
    if total is None:
        total = targets.size if weights is None else float(weights.sum(dtype=np.float64))
    if total == 0:
        raise ValueError("no target has a weight, so there is no mean loss")
    logits = cupy.ascontiguousarray(logits)
    gradient = logits if overwrite else cupy.empty(logits.shape, logits.dtype)
    nats, loss = cupy.empty(targets.size, np.float32), cupy.empty((), np.float32)
    settings = np.int32(size), np.float32(total), np.float32(smoothing)
    arguments = (logits, targets, np.int32(8 * targets.dtype.itemsize), weights, gradient, nats, *settings)
    _SOURCE.launch("cross_entropy_forward", logits.dtype, targets.size, _threads(size, logits.dtype), arguments)
    _SOURCE.launch("cross_entropy_sum", logits.dtype, 1, 1024, (nats, loss, np.int32(targets.size)))
    return loss, gradient


def _backward(xp, gradient, g):
    """Nothing is read where the gradient that comes in is 1."""
    blocks = min(-(-gradient.size * gradient.dtype.itemsize // (16 * 256)), _BLOCKS)
    arguments = (gradient, cupy.ascontiguousarray(g), np.int64(gradient.size))
    _SOURCE.launch("cross_entropy_scale", gradient.dtype, blocks, 256, arguments)
    return gradient, None, None


def _supports(logits, targets, weights, **metadata):
    return logits.dtype.name in REALS and logits.size > 0


cross_entropy = Kernel(_forward, _backward, _supports)
