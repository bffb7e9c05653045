"""Rotary positions: pairs of channels turned by the angles of their position.

Read before: `kernels.py`. Read next: `attention.py`.
"""

from __future__ import annotations

import numpy as np

from ..contract import Kernel
from .attention import heads_last


def _rotate(x, cos, sin):
    """x cos in one pass, then half by half what the sines add, of one row of the batch at a time: it stays in cache.

    0.7 to 0.95 of the time of whole arrays by halves, the less the larger.
    """
    half = x.shape[-1] // 2
    h, t = x.shape[1:3]
    out = heads_last(x)
    np.multiply(x, np.concatenate((cos, cos), axis=-1), out=out)
    work = np.empty((t, h, half), x.dtype).transpose(1, 0, 2)
    for row, turned in zip(x, out):
        turned[..., :half] -= np.multiply(row[..., half:], sin, out=work)
        turned[..., half:] += np.multiply(row[..., :half], sin, out=work)
    return out


def _forward(xp, x, cos, sin):
    return _rotate(x, cos, sin), (cos, sin)


def _backward(xp, saved, g):
    """A rotation's transpose turns the other way."""
    cos, sin = saved
    return _rotate(g, cos, -sin), None, None


rotary = Kernel(_forward, _backward)
