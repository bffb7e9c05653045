"""Norms of each position, in blocks of rows that stay in cache.

What is summed along a row or over rows is a product with a vector: BLAS adds several numbers at once, where `sum` is
bound by the latency of one addition after the other, or by a call for each row.

Read before: `kernels.py`. Read next: `activations.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..contract import Array, Kernel, of_one_dtype

_BLOCK = 1 << 18  # elements of a block, about: 1 MB of float32; smaller ones cost more calls than they save


def _blocks(shape: tuple[int, int]) -> Iterator[slice]:
    """Rows of each block."""
    rows = max(1, _BLOCK // shape[1])
    return (slice(start, start + rows) for start in range(0, shape[0], rows))


def _forward(x, weight, bias, residual, epsilon, *, centred: bool):
    """Keeps the normalised rows and the reciprocal deviations. The squares stand where the result will."""
    rows = x.reshape(-1, x.shape[-1])
    more = None if residual is None else residual.reshape(rows.shape)
    ones, width = np.ones((rows.shape[1], 1), rows.dtype), rows.shape[1]
    out, normal = np.empty(rows.shape, rows.dtype), np.empty(rows.shape, rows.dtype)
    reciprocal = np.empty((rows.shape[0], 1), rows.dtype)
    for block in _blocks(rows.shape):
        given, n, y = rows[block], normal[block], out[block]
        if more is not None:
            given = np.add(given, more[block], out=n)
        if centred:
            given = np.subtract(given, given @ ones / width, out=n)  # equal numbers have exactly their mean
        np.multiply(given, given, out=y)
        np.divide(1.0, np.sqrt(y @ ones / width + epsilon), out=reciprocal[block])
        np.multiply(given, reciprocal[block], out=n)
        np.multiply(n, weight, out=y)
        if bias is not None:
            y += bias
    return out.reshape(x.shape), (normal, reciprocal, weight, residual is not None)


def _layer_norm_forward(xp, x, weight, bias, residual, *, epsilon):
    """With backward, 0.45 to 0.5 of the composed function's time.

    Products with vectors and blocks are worth 0.85 of that at 1024 rows of 256, and 0.6 at 4096 of 768, where whole
    arrays leave the cache.
    """
    out, saved = _forward(x, weight, bias, residual, epsilon, centred=True)
    return out, (*saved, bias is not None)


def _rms_norm_forward(xp, x, weight, residual, *, epsilon):
    """With backward, 0.5 of the composed function's time."""
    return _forward(x, weight, None, residual, epsilon, centred=False)


def _backward(saved, g, *, centred: bool):
    """With n the normalised row and ĝ = ḡ weight: x̄ = (ĝ - mean(ĝ) - n mean(ĝ n)) / deviation, w̄ = Σ ḡ n, b̄ = Σ ḡ.

    Without `centred`, mean(ĝ) and b̄ are left out. The means come from ḡ and ḡ n by products with weight / d, so that
    ĝ is formed once, in the result; and n, which nothing needs later, becomes its own term: one array is made.
    """
    normal, reciprocal, weight = saved
    g = g.reshape(normal.shape)
    share = (weight / weight.dtype.type(weight.size))[:, None]
    out = np.empty(normal.shape, normal.dtype)
    grad_weight, grad_bias = np.zeros(weight.shape, weight.dtype), np.zeros(weight.shape, weight.dtype)
    for block in _blocks(normal.shape):
        n, g_rows, y = normal[block], g[block], out[block]
        ones = np.ones(len(n), weight.dtype)
        np.multiply(g_rows, n, out=y)
        grad_weight += ones @ y
        n *= y @ share
        np.multiply(g_rows, weight, out=y)
        y -= n
        if centred:
            grad_bias += ones @ g_rows
            y -= g_rows @ share
        y *= reciprocal[block]
    return out, grad_weight, grad_bias


def _layer_norm_backward(xp, saved, g):
    *arrays, added, biased = saved
    out, grad_weight, grad_bias = _backward(arrays, g, centred=True)
    out = out.reshape(g.shape)
    return out, grad_weight, grad_bias if biased else None, out if added else None


def _rms_norm_backward(xp, saved, g):
    *arrays, added = saved
    out, grad_weight, _ = _backward(arrays, g, centred=False)
    out = out.reshape(g.shape)
    return out, grad_weight, out if added else None


def _supports(x: Array, *others: Array | None, **metadata: float) -> bool:
    residual = others[-1]
    return of_one_dtype(x, *others) and (residual is None or residual.shape == x.shape)


layer_norm = Kernel(_layer_norm_forward, _layer_norm_backward, _supports)
rms_norm = Kernel(_rms_norm_forward, _rms_norm_backward, _supports)
