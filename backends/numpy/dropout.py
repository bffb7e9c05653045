"""Dropout, by truth values that were drawn elsewhere.

Read before: `kernels.py`; the drawing is in `random.py`.
"""

from __future__ import annotations

from ..contract import Kernel


def dropped(x, keep, rate):
    """x / (1 - rate) where it is kept, else 0."""
    out = keep.astype(x.dtype)  # a product with truth values would be three times as slow
    out *= 1.0 / (1.0 - rate)
    out *= x
    return out


def _forward(xp, x, keep, *, rate):
    """Keeps the truth values, a quarter of what factors would take in single precision. 0.25 of the composed time."""
    return dropped(x, keep, rate), (keep, rate)


def _backward(xp, saved, g):
    return dropped(g, *saved), None


def _supports(x, keep, *, rate):
    return keep is not None and keep.shape == x.shape and keep.dtype == bool


dropout = Kernel(_forward, _backward, _supports)
