"""Attention by blocks of queries and keys, whose scores never leave the chip (Dao 2022, "FlashAttention").

A block of queries meets the keys block by block. Of the softmax it keeps two running numbers for each query, the
largest score and the sum of the exponentials, and corrects what it has summed when a larger score comes. Kept for the
gradient is one number a query, the logarithm of that sum, from which the weights are computed again.

Here are the kernels that compute in float32 whatever the width; `attention_mma.py` has faster ones by tensor cores, and
takes what it can. Read before: `scores.py`. Read next: `attention.cu`, `attention_backward.cu`.
"""

from __future__ import annotations

from types import SimpleNamespace

from ..contract import Kernel
from .scores import Scores, supports


def _block_forward(scores: Scores):
    """out, `b h t c`, and for each query the logarithm of the sum of its exponentials, float32 `b h t`; 0 of none."""
    raise NotImplementedError


def _block_backward(scores: Scores, out, logs, g):
    """The gradients of query, key, value and bias; those of keys in the full shape `b h s c`."""
    raise NotImplementedError


blocks = SimpleNamespace(forward=_block_forward, backward=_block_backward)


def _forward(xp, *arrays, **settings):
    scores = Scores(*arrays, **settings)
    implementation = blocks  # or attention_mma, where it takes these scores: same two functions
    out, logs = implementation.forward(scores)
    return out, (implementation, scores, out, logs)


def _backward(xp, saved, g):
    implementation, scores, out, logs = saved
    query, key, value, bias = implementation.backward(scores, out, logs, g)
    return query, key, value, None, bias, None


attention = Kernel(_forward, _backward, supports)
