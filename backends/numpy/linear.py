"""Linear maps: one matrix product over all positions.

Read before: `kernels.py`.
"""

from __future__ import annotations

import numpy as np

from ..contract import Kernel


def _linear_forward(xp, x, weight, bias):
    """One product over all positions, the bias added in place."""
    rows = x.reshape(-1, x.shape[-1])
    out = rows @ weight
    if bias is not None:
        out += bias
    return out.reshape(*x.shape[:-1], weight.shape[1]), (rows, weight, bias is not None)


def _linear_backward(xp, saved, g):
    rows, weight, biased = saved
    shape, g = g.shape[:-1], g.reshape(rows.shape[0], -1)
    grad_bias = np.ones((1, g.shape[0]), g.dtype) @ g if biased else None  # BLAS adds rows up faster than sum
    return (g @ weight.T).reshape(*shape, -1), rows.T @ g, grad_bias[0] if biased else None


linear = Kernel(_linear_forward, _linear_backward)
