"""The feed-forward network with a gelu, in bfloat16: the gelu and its slope in the epilogues of products.

What goes into the gelu is written for the gradient, and what comes out for the next product, by the product before it;
and the gradient of the second map meets the slope before it is written. Next to separate kernels that saves reading
the hidden numbers once forward, and reading and writing them once backward.

Read before: `linear.py`, `activations.py`.
"""

from __future__ import annotations

import cupy

from ..contract import Kernel, of_one_dtype
from .activations import gelu
from .linear import affine, weight_gradients
from .products import library, multiply, product

_ALIGNED = 8  # numbers that the length of a line of hidden ones must be a multiple of


def _feed_forward_forward(xp, x, up, down, up_bias, down_bias, *, activation):
    rows = x.reshape(-1, x.shape[-1])
    inner = cupy.empty((rows.shape[0], up.shape[1]), rows.dtype)
    hidden = cupy.empty(inner.shape, inner.dtype)
    vector = None if up_bias is None else cupy.ascontiguousarray(up_bias)
    if not multiply(rows, up, hidden, "gelu", vector=vector, extra=inner):
        inner = affine(rows, up, up_bias)
        hidden, _ = gelu.forward(xp, inner, approximate=True)
    out = affine(hidden, down, down_bias).reshape(*x.shape[:-1], down.shape[1])
    return out, (rows, inner, hidden, up, down, up_bias is not None, down_bias is not None)


def _feed_forward_backward(xp, saved, g):
    rows, inner, hidden, up, down, up_biased, down_biased = saved
    shape, g = g.shape[:-1], g.reshape(rows.shape[0], down.shape[1])
    grad_down, grad_down_bias = weight_gradients(hidden, down, g, down_biased)
    grad_inner = cupy.empty(inner.shape, inner.dtype)
    if not multiply(g, down.T, grad_inner, "slope", extra=inner):
        product(g, down.T, grad_inner)
        _, kept = gelu.forward(xp, inner, approximate=True)
        (grad_inner,) = gelu.backward(xp, kept, grad_inner)
    grad_up, grad_up_bias = weight_gradients(rows, up, grad_inner, up_biased)
    grad_rows = cupy.empty(rows.shape, rows.dtype)
    product(grad_inner, up.T, grad_rows)
    return grad_rows.reshape(*shape, up.shape[0]), grad_up, grad_down, grad_up_bias, grad_down_bias


def _feed_forward_supports(x, up, down, up_bias, down_bias, *, activation):
    """Where cuBLASLt is missing there are no epilogues; float32 has its own kernels, which round nothing on the way."""
    stored = x.dtype.name == "bfloat16" and of_one_dtype(x, up, down, up_bias, down_bias)
    return stored and activation == "gelu" and up.shape[1] % _ALIGNED == 0 and library() is not None


feed_forward = Kernel(_feed_forward_forward, _feed_forward_backward, _feed_forward_supports)
