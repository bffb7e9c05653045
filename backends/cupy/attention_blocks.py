"""Attention by blocks of queries and keys, whose scores never leave the chip (Dao 2022, "FlashAttention").

A block of queries meets the keys block by block. Of the softmax it keeps two running numbers for each query, the
largest score and the sum of the exponentials, and corrects what it has summed when a larger score comes. Kept for the
gradient is one number a query, the logarithm of that sum, from which the weights are computed again.

These kernels compute in float32 at any width of a head; `attention_mma.py` has faster ones for much of it.

Read before: `attention.py`, `scores.py`. Read next: `attention.cu`, `attention_dots.cu`, `attention_backward.cu`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cupy
import numpy as np

from .launch import Source
from .scores import Scores, heads_last, together

_FORWARD, _DOTS, _BACKWARD = Source("attention.cu"), Source("attention_dots.cu"), Source("attention_backward.cu")
_THREADS = 256
_FORWARD_TILES = {32: 64, 64: 64, 128: 64, 256: 32}  # queries, and keys, of a tile, by the width of a head: what leaves
_BACKWARD_TILES = {32: 64, 64: 64, 128: 32, 256: 16}  # two blocks of threads on a processor, or one on a small one


class _Launch(NamedTuple):
    """How the kernels of one source run on some scores."""

    source: Source
    scores: Scores
    width: int
    tile: int
    tiles: int

    @classmethod
    def of(cls, source: Source, scores: Scores, sizes: dict[int, int], tiles: int) -> _Launch:
        width = next(width for width in sizes if width >= scores.width)
        return cls(source, scores, width, sizes[width], tiles)

    def __call__(self, kernel: str, grid: int, *arguments: Any) -> None:
        """`grid` blocks with `tiles` tiles of rows each, a square one of scores, and what dropout draws for that."""
        floats = self.tiles * self.tile * (self.width + 4) + self.tile * (self.tile + 4)
        drawn = self.tile * (self.tile // 16 + 1) * 2
        arguments += self.scores.arguments
        sizes = {"shared": 4 * floats + drawn, "WIDTH": self.width, "TILE": self.tile}
        self.source.launch(kernel, self.scores.dtype, grid, _THREADS, arguments, **sizes)

    def blocks(self, count: int) -> int:
        """Tiles that hold so many rows."""
        return -(-count // self.tile)


def takes(scores: Scores) -> bool:
    """Whether these kernels can compute attention with these scores: all that there are."""
    return True


def forward(scores: Scores) -> tuple[Any, Any]:
    """out, `b h t c`, and for each query the logarithm of the sum of its exponentials, float32 `b h t`; 0 of none."""
    b, h, t, _ = scores.shape
    out, logs = heads_last((b, h, t, scores.width), scores.dtype), cupy.empty((b, h, t), np.float32)
    launch = _Launch.of(_FORWARD, scores, _FORWARD_TILES, tiles=2)
    launch("attention_forward", launch.blocks(t) * b * h, *given(scores), out, logs)
    return out, logs


def backward(scores: Scores, out: Any, logs: Any, g: Any) -> tuple[Any, Any, Any, Any]:
    """The gradients of query, key, value and bias; those of keys in the full shape `b h s c`."""
    b, h, t, s = scores.shape
    launch, g = _Launch.of(_BACKWARD, scores, _BACKWARD_TILES, tiles=4), together(g)
    dots = dots_of(scores, out, g)
    arrays = (*given(scores), *scores.of_queries(g), logs, dots)
    grad_query = heads_last((b, h, t, scores.width), scores.dtype)
    grad_key, grad_value = (heads_last((b, h, s, scores.width), scores.dtype) for _ in range(2))
    launch("attention_queries", launch.blocks(t) * b * h, *arrays, grad_query)
    launch("attention_keys", launch.blocks(s) * b * h, *arrays, grad_key, grad_value)
    if scores.bias is None:
        return grad_query, grad_key, grad_value, None
    rows = scores.bias.shape[0] if scores.bias.ndim == 4 else 1
    grad_bias = cupy.empty((rows, h, t, s), np.float32)
    grid = launch.blocks(t) * launch.blocks(s) * rows * h
    launch("attention_bias", grid, *arrays, grad_bias, np.int32(b), np.int32(rows == 1))
    return grad_query, grad_key, grad_value, summed(grad_bias, scores.bias)


def dots_of(scores: Scores, out: Any, g: Any) -> Any:
    """The product of each query's gradient and result, float32 `b h t`."""
    b, h, t, _ = scores.shape
    dots, count = cupy.empty((b, h, t), np.float32), b * h * t
    sizes = (np.int32(h), np.int32(t), np.int32(scores.width), np.int64(count))
    arguments = (*scores.of_queries(g), out, dots, *sizes)
    _DOTS.launch("attention_dots", scores.dtype, -(-count * 32 // _THREADS), _THREADS, arguments)
    return dots


def given(scores: Scores) -> tuple[Any, ...]:
    """Queries, keys and values as kernel arguments."""
    return (*scores.of_queries(scores.query), *scores.of_keys(scores.key), *scores.of_keys(scores.value))


def summed(gradient: Any, bias: Any) -> Any:
    """The gradient `n h t s` summed, in single precision, over the axes along which the bias is repeated."""
    shape = (1,) * (4 - bias.ndim) + bias.shape
    repeated = tuple(axis for axis in range(4) if shape[axis] < gradient.shape[axis])
    gradient = cupy.sum(gradient, axis=repeated, keepdims=True) if repeated else gradient
    return gradient.reshape(bias.shape).astype(bias.dtype, copy=False)
