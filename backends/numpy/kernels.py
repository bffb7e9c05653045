"""Fused kernels for the CPU. Each computes what the composed function of the same name in `tinyformer/functional.py`
defines, with fewer passes over memory.

A NumPy operation on a large array reads and writes memory once; the arithmetic is free beside it. So a kernel saves
time by doing a chain of operations on a block that stays in cache, and by not forming what the gradient does not need.

Read before: `tinyformer/fused.py`. Read next: `linear.py`, `norms.py`, `activations.py`, `loss.py`, `attention.py`.
"""

from __future__ import annotations

import numpy as np

from ..contract import Kernel
from .activations import gated, gelu, relu, silu
from .attention import attention
from .linear import linear
from .loss import cross_entropy
from .norms import layer_norm, rms_norm
from .softmax import softmax


def _rotate(x, cos, sin):
    """x cos in one pass, then half by half what the sines add, of one row of the batch at a time: it stays in cache.

    0.7 to 0.95 of the time of whole arrays by halves, the less the larger.
    """
    half = x.shape[-1] // 2
    b, h, t, c = x.shape
    out = np.empty((b, t, h, c), x.dtype).transpose(0, 2, 1, 3)
    np.multiply(x, np.concatenate((cos, cos), axis=-1), out=out)
    work = np.empty((t, h, half), x.dtype).transpose(1, 0, 2)
    for row, turned in zip(x, out):
        turned[..., :half] -= np.multiply(row[..., half:], sin, out=work)
        turned[..., half:] += np.multiply(row[..., :half], sin, out=work)
    return out


def _rotary_forward(xp, x, cos, sin):
    return _rotate(x, cos, sin), (cos, sin)


def _rotary_backward(xp, saved, g):
    """A rotation's transpose turns the other way."""
    cos, sin = saved
    return _rotate(g, cos, -sin), None, None


rotary = Kernel(_rotary_forward, _rotary_backward)


def _dropped(x, keep, rate):
    """Numbers 0 and 1 become the result in place: a product with truth values would be three times as slow."""
    out = keep.astype(x.dtype)
    out *= 1.0 / (1.0 - rate)
    out *= x
    return out


def _dropout_forward(xp, x, keep, *, rate):
    """Keeps the truth values, a quarter of what factors would take in single precision. 0.25 of the composed time."""
    return _dropped(x, keep, rate), (keep, rate)


def _dropout_backward(xp, saved, g):
    return _dropped(g, *saved), None


dropout = Kernel(_dropout_forward, _dropout_backward, lambda x, keep, *, rate: keep is not None)


KERNELS: dict[str, Kernel] = {
    "attention": attention,
    "cross_entropy": cross_entropy,
    "dropout": dropout,
    "gated": gated,
    "gelu": gelu,
    "layer_norm": layer_norm,
    "linear": linear,
    "relu": relu,
    "rms_norm": rms_norm,
    "rotary": rotary,
    "silu": silu,
    "softmax": softmax,
}
