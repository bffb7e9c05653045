"""Linear maps: one product over all positions, the bias added while the numbers are in registers.

Read before: `products.py`. Read next: `linear.cu`.
"""

from __future__ import annotations

import cupy
import numpy as np

from ..contract import Kernel, of_one_dtype
from .launch import REALS, Source
from .products import multiply, product

_SOURCE = Source("linear.cu")
_LINES, _WARP = 8, 32
_PART = 256  # rows that a block adds up, unless that made more than _PARTS parts
_PARTS = 64


def _linear_forward(xp, x, weight, bias):
    """Against a product and a sum, saves reading and writing the result once more."""
    rows = x.reshape(-1, x.shape[-1])
    return affine(rows, weight, bias).reshape(*x.shape[:-1], weight.shape[1]), (rows, weight, bias is not None)


def _linear_backward(xp, saved, g):
    """x̄ = ḡ Wᵀ, W̄ = xᵀ ḡ and b̄ = Σ ḡ."""
    rows, weight, biased = saved
    shape, g = g.shape[:-1], g.reshape(rows.shape[0], weight.shape[1])
    grad_weight, grad_bias = weight_gradients(rows, weight, g, biased)
    grad_rows = cupy.empty(rows.shape, rows.dtype)
    product(g, weight.T, grad_rows)
    return grad_rows.reshape(*shape, weight.shape[0]), grad_weight, grad_bias


def affine(rows, weight, bias):
    """x W + b: `n d` to `n f`."""
    out = cupy.empty((rows.shape[0], weight.shape[1]), rows.dtype)
    if bias is None:
        product(rows, weight, out)
    elif not multiply(rows, weight, out, "bias", vector=cupy.ascontiguousarray(bias)):
        product(rows, weight, out)
        out += bias
    return out


def weight_gradients(rows, weight, g, biased):
    """W̄ = xᵀ ḡ, which lies as the weight does, as of tied embeddings; and b̄ = Σ ḡ, or None where there is no bias."""
    turned = weight.T.flags.c_contiguous
    grad_weight = cupy.empty(weight.shape[::-1], weight.dtype).T if turned else cupy.empty(weight.shape, weight.dtype)
    if not biased:
        product(rows.T, g, grad_weight)
        return grad_weight, None
    grad_bias = cupy.empty(weight.shape[1:], weight.dtype)
    if not multiply(rows.T, g, grad_weight, "sums", vector=grad_bias):
        product(rows.T, g, grad_weight)
        column_sums(g, grad_bias)
    return grad_weight, grad_bias


def column_sums(x, out):
    """Write the sums of the columns of `n f` into `f`."""
    x = cupy.ascontiguousarray(x)
    rows, columns = x.shape
    parts = min(-(-rows // _PART) or 1, _PARTS)
    partial = cupy.empty((parts, columns), np.float32)
    packs = _WARP * (16 // x.itemsize)  # columns of a block
    arguments = (x, partial, np.int64(rows), np.int64(columns))
    _SOURCE.launch("column_sums", x.dtype, (-(-columns // packs), parts), (_WARP, _LINES), arguments)
    arguments = (partial, out, np.int32(parts), np.int64(columns))
    _SOURCE.launch("add_parts", x.dtype, -(-columns // 256), 256, arguments)


def _linear_supports(x, weight, bias):
    return x.dtype.name in REALS and of_one_dtype(x, weight, bias)


linear = Kernel(_linear_forward, _linear_backward, _linear_supports)
