"""Linear maps: one matrix product over all positions.

Read before: `products.py`.
"""

from __future__ import annotations

import numpy as np

from ..contract import Kernel, of_one_dtype
from .products import product


def _linear_forward(xp, x, weight, bias):
    """One product over all positions, the bias added in place."""
    rows = x.reshape(-1, x.shape[-1])
    out = product(rows, weight)
    if bias is not None:
        out += bias
    return out.reshape(*x.shape[:-1], weight.shape[1]), (rows, weight, bias is not None)


def _linear_backward(xp, saved, g):
    """x̄ = ḡ Wᵀ, W̄ = xᵀ ḡ and b̄ = Σ ḡ, each one product over all positions; nothing is copied to be transposed."""
    rows, weight, biased = saved
    shape, g = g.shape[:-1], g.reshape(rows.shape[0], weight.shape[1])
    grad_bias = np.ones((1, g.shape[0]), g.dtype) @ g if biased else None  # BLAS adds rows up faster than sum
    # A weight that is the transpose of a parameter, as of tied embeddings, gets its gradient in the parameter's order.
    grad_weight = (g.T @ rows).T if weight.T.flags.c_contiguous else rows.T @ g
    return (g @ weight.T).reshape(*shape, weight.shape[0]), grad_weight, grad_bias[0] if biased else None


linear = Kernel(_linear_forward, _linear_backward, of_one_dtype)
