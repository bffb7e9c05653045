"""Attention by blocks of queries, on views of the projections.

A block of 64 queries meets only the keys that it may see, which skips almost half of a causal attention, and its
scores stay in cache between the product, the softmax and the next product. Queries, keys and values may be views of
any layout in which a head's channels lie together, and the results are laid out so that joining the heads is free.

Read before: `kernels.py`.
"""

from __future__ import annotations

import math

import numpy as np

from ..contract import Kernel

_ROWS = 64


def _blocks(queries: int, keys: int, causal: bool):
    """Of each block: its queries, and how many keys it may see."""
    for start in range(0, queries, _ROWS):
        stop = min(start + _ROWS, queries)
        yield slice(start, stop), keys - queries + stop if causal else keys


def _heads_last(x: np.ndarray) -> np.ndarray:
    """An empty array like x, `b h t c`, in memory laid out as `b t h c`."""
    b, h, t, c = x.shape
    return np.empty((b, t, h, c), x.dtype).transpose(0, 2, 1, 3)


def _forward(xp, query, key, value, mask, bias, keep, *, causal, scale, dropout_rate):
    """Keeps each block's weights, which for a causal attention are about half of `b h t s`."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    out = _heads_last(query)
    kept = []
    for rows, seen in _blocks(query.shape[2], key.shape[2], causal):
        weights = (query[:, :, rows] * scale) @ key[:, :, :seen].swapaxes(2, 3)
        if causal:  # only the last columns, one for each query, reach the diagonal
            size = rows.stop - rows.start
            weights[..., seen - size :][..., ~np.tri(size, dtype=bool)] = -math.inf
        weights -= weights.max(axis=-1, keepdims=True)
        np.exp(weights, out=weights)
        weights /= weights.sum(axis=-1, keepdims=True)
        np.matmul(_dropped(weights, keep, rows, seen, dropout_rate), value[:, :, :seen], out=out[:, :, rows])
        kept.append(weights)
    return out, (query, key, value, keep, kept, out, causal, scale, dropout_rate)


def _dropped(weights, keep, rows, seen, rate):
    if keep is None:
        return weights
    used = keep[:, :, rows, :seen].astype(weights.dtype)  # a product with truth values would be three times as slow
    used *= 1.0 / (1.0 - rate)
    used *= weights
    return used


def _backward(xp, saved, g):
    """With p the weights: p̄ = ḡ vᵀ, and through the softmax s̄ = p (p̄ - Σ p̄ p), where Σ p̄ p = Σ ḡ out."""
    query, key, value, keep, kept, out, causal, scale, rate = saved
    grad_query, grad_key, grad_value = (_heads_last(x) for x in (query, key, value))
    grad_key[...] = grad_value[...] = 0.0
    for (rows, seen), weights in zip(_blocks(query.shape[2], key.shape[2], causal), kept):
        g_rows = g[:, :, rows]
        used = _dropped(weights, keep, rows, seen, rate)
        grad_value[:, :, :seen] += used.swapaxes(2, 3) @ g_rows
        scores = _dropped(g_rows @ value[:, :, :seen].swapaxes(2, 3), keep, rows, seen, rate)
        scores -= np.vecdot(g_rows, out[:, :, rows])[..., None]
        scores *= weights
        scores *= scale
        np.matmul(scores, key[:, :, :seen], out=grad_query[:, :, rows])
        grad_key[:, :, :seen] += scores.swapaxes(2, 3) @ query[:, :, rows]
    return grad_query, grad_key, grad_value, None, None, None


def _supports(query, key, value, mask, bias, keep, *, causal, scale, dropout_rate):
    """Without an additive bias or a mask; as many heads of keys and values; and where a causal query has a key."""
    alike = query.shape[:2] == key.shape[:2] == value.shape[:2] and query.shape[3] == value.shape[3]
    return mask is None and bias is None and alike and not (causal and key.shape[2] < query.shape[2])


attention = Kernel(_forward, _backward, _supports)
