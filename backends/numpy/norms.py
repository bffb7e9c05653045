"""Norms of each position.

Read before: `kernels.py`.
"""

from __future__ import annotations

import numpy as np

from ..contract import Kernel


def _layer_norm_forward(xp, x, weight, bias, *, epsilon):
    """Keeps the normalised rows and the reciprocal deviations; row sums are products with ones: BLAS does them best."""
    rows = x.reshape(-1, x.shape[-1])
    average = np.full((rows.shape[1], 1), 1.0 / rows.shape[1], rows.dtype)
    normal = rows - rows @ average
    reciprocal = 1.0 / np.sqrt(np.square(normal) @ average + epsilon)
    normal *= reciprocal
    out = normal * weight
    if bias is not None:
        out += bias
    return out.reshape(x.shape), (normal, reciprocal, weight, bias is not None)


def _layer_norm_backward(xp, saved, g):
    """With n the normalised row: x̄ = (ĝ - mean(ĝ) - n mean(ĝ n)) / deviation, where ĝ = ḡ weight."""
    normal, reciprocal, weight, biased = saved
    shape, g = g.shape, g.reshape(normal.shape)
    average = np.full((g.shape[1], 1), 1.0 / g.shape[1], g.dtype)
    product = g * normal
    grad_weight = product.sum(axis=0)
    scaled = g * weight
    product *= weight
    np.multiply(normal, product @ average, out=product)
    product += scaled @ average
    scaled -= product
    scaled *= reciprocal
    return scaled.reshape(shape), grad_weight, g.sum(axis=0) if biased else None


layer_norm = Kernel(_layer_norm_forward, _layer_norm_backward)


def _rms_norm_forward(xp, x, weight, *, epsilon):
    """Keeps the normalised rows and the reciprocal root mean squares."""
    rows = x.reshape(-1, x.shape[-1])
    average = np.full((rows.shape[1], 1), 1.0 / rows.shape[1], rows.dtype)
    reciprocal = 1.0 / np.sqrt(np.square(rows) @ average + epsilon)
    normal = rows * reciprocal
    return (normal * weight).reshape(x.shape), (normal, reciprocal, weight)


def _rms_norm_backward(xp, saved, g):
    """With n the normalised row: x̄ = (ĝ - n mean(ĝ n)) / rms, where ĝ = ḡ weight."""
    normal, reciprocal, weight = saved
    shape, g = g.shape, g.reshape(normal.shape)
    average = np.full((g.shape[1], 1), 1.0 / g.shape[1], g.dtype)
    product = g * normal
    grad_weight = product.sum(axis=0)
    scaled = g * weight
    product *= weight
    scaled -= normal * (product @ average)
    scaled *= reciprocal
    return scaled.reshape(shape), grad_weight


rms_norm = Kernel(_rms_norm_forward, _rms_norm_backward)
