"""Attention on a GPU, which never stores its scores: by tensor cores where they can, and else by blocks in float32.

Read before: `numpy/attention.py`, `launch.py`. Read next: `scores.py`, `attention_blocks.py`, `attention_mma.py`.
"""

from __future__ import annotations

from ..contract import Kernel
from . import attention_blocks, attention_mma
from .scores import Scores, supports

# The first that takes the scores is used: `forward(scores) -> (out, logs)`, where logs are what backward needs of each
# query, and `backward(scores, out, logs, gradient) -> gradients` of query, key, value and bias.
WAYS = [attention_mma, attention_blocks]


def _forward(xp, *arrays, **settings):
    scores = Scores(*arrays, **settings)
    way = next(way for way in WAYS if way.takes(scores))
    out, logs = way.forward(scores)
    return out, (way, scores, out, logs)


def _backward(xp, saved, g):
    way, scores, out, logs = saved
    query, key, value, bias = way.backward(scores, out, logs, g)
    return query, key, value, None, bias, None


attention = Kernel(_forward, _backward, supports)
