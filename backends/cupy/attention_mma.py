"""Attention by tensor cores: bfloat16, and float32 where its products may be rounded to TF32 (`Backend.rounding`).

The same as `attention_blocks.py` does, with the same numbers kept for the gradient, for heads of up to 128 channels,
64 in float32, whose rows are whole pieces of 16 bytes. Masks and dropout are made into bits first, 64 keys in a word,
which backward uses again.

Read before: `attention_blocks.py`, `mma.cuh`. Read next: `attention_mma.cu`, `attention_mma_backward.cu`.
"""

from __future__ import annotations

import functools
from typing import Any

import cupy
import numpy as np

from . import products
from .attention_blocks import dots_of, given, summed
from .launch import Source
from .scores import Scores, heads_last, strides

_BITS = Source("attention_bits.cu")
_FORWARD, _BACKWARD = Source("attention_mma.cu"), Source("attention_mma_backward.cu")
_WIDTHS = (32, 64, 128)  # of heads, rounded up
_WIDEST = 256  # bytes of a head's row; the sums of wider ones do not fit into registers
_THREADS, _TILE = 128, 64  # of a block; keys, or queries, that it meets at a time
_MOST_KEPT = 1 << 33  # weights that dropout may make into bits, in 1 GiB; other kernels draw them where they use them


class _Versions:
    """The constants that kernels are compiled with for some scores, and the shared memory that they take, in bytes."""

    def __init__(self, scores: Scores) -> None:
        self.dtype, self.biased = scores.dtype, scores.bias is not None
        self.width = next(width for width in _WIDTHS if width >= scores.width)
        self._row = self.width * self.dtype.itemsize
        self.block = 64 if self.biased or self.width == 128 else 128  # queries of a block in forward
        self.part = (32 if self.width == 128 else 64) // (2 if self.biased else 1)  # rows at a time in backward

    def forward(self, grid: int, *arguments: Any) -> None:
        """`grid` blocks of as many queries as `block` says."""
        self._launch(_FORWARD, "attention_mma_forward", grid, arguments, self.block + 4 * _TILE, self.block // 64)

    def backward(self, kernel: str, grid: int, *arguments: Any) -> None:
        """`grid` blocks of 64 queries or keys."""
        rows = 2 * 64 + (2 * self.part if kernel == "attention_mma_bias" else 4 * _TILE)
        more = 16 * _TILE if kernel == "attention_mma_keys" else 0
        self._launch(_BACKWARD, kernel, grid, arguments, rows, 1, more, PART=self.part)

    def _launch(self, source, kernel, grid, arguments, rows, strips, more=0, **constants) -> None:
        constants |= {"WIDTH": self.width, "STRIPS": strips, "BIASED": int(self.biased)}
        source.launch(kernel, self.dtype, grid, _THREADS, arguments, shared=rows * self._row + more, **constants)


def takes(scores: Scores) -> bool:
    """Whether these kernels can compute attention with these scores."""
    narrow = scores.dtype.name == "bfloat16"
    return (
        (narrow or products.current_rounding() == "tf32")
        and scores.width * scores.dtype.itemsize <= _WIDEST
        and scores.width * scores.dtype.itemsize % 16 == 0
        and not (scores.dropped and np.prod(scores.shape, dtype=object) > _MOST_KEPT)
        and _capable(cupy.cuda.runtime.getDevice())
    )


@functools.cache
def _capable(device: int) -> bool:
    """Whether its tensor cores know these products; then it has the 97 KiB that a block takes at most, too."""
    return cupy.cuda.runtime.deviceGetAttribute(75, device) >= 8  # the major number of its compute capability


def forward(scores: Scores) -> tuple[Any, Any]:
    """As `attention_blocks.forward`."""
    b, h, t, _ = scores.shape
    scores.query, scores.key, scores.value = (_rows(x) for x in (scores.query, scores.key, scores.value))
    scores.bits = _bits(scores)
    out, logs = heads_last((b, h, t, scores.width), scores.dtype), cupy.empty((b, h, t), np.float32)
    versions = _Versions(scores)
    grid = -(-t // versions.block) * b * h
    versions.forward(grid, *given(scores), out, logs, *scores.bits, *scores.arguments)
    return out, logs


def backward(scores: Scores, out: Any, logs: Any, g: Any) -> tuple[Any, Any, Any, Any]:
    """As `attention_blocks.backward`."""
    b, h, t, s = scores.shape
    versions, g = _Versions(scores), _rows(g)
    arrays = (*given(scores), *scores.of_queries(g), logs, dots_of(scores, out, g))
    told = (*scores.bits, *scores.arguments)
    grad_query = heads_last((b, h, t, scores.width), scores.dtype)
    grad_key, grad_value = (heads_last((b, h, s, scores.width), scores.dtype) for _ in range(2))
    versions.backward("attention_mma_queries", -(-t // 64) * b * h, *arrays, grad_query, *told)
    versions.backward("attention_mma_keys", -(-s // 64) * b * h, *arrays, grad_key, grad_value, *told)
    if scores.bias is None:
        return grad_query, grad_key, grad_value, None
    rows = scores.bias.shape[0] if scores.bias.ndim == 4 else 1
    grad_bias = cupy.empty((rows, h, t, s), np.float32)
    grid = -(-t // 64) * -(-s // versions.part) * rows * h
    versions.backward("attention_mma_bias", grid, *arrays, grad_bias, np.int32(b), np.int32(rows == 1), *told)
    return grad_query, grad_key, grad_value, summed(grad_bias, scores.bias)


def _rows(x: Any) -> Any:
    """The same array, copied if its rows do not all begin at multiples of 16 bytes, channels side by side."""
    steps = [step for n, step in zip(x.shape[:3], x.strides) if n > 1]
    whole = x.strides[3] == x.itemsize and all(step % 16 == 0 for step in (x.data.ptr, *steps))
    return x if whole else x.copy()


def _bits(scores: Scores) -> tuple[Any, ...]:
    """The kernel parameters `BITS_PARAMETERS` of `mma_scores.cuh`."""
    b, h, t, s = scores.shape
    words, shown, retained = -(-s // 64), None, None
    if scores.mask is not None:
        rows = (1,) * (4 - scores.mask.ndim) + scores.mask.shape[:-1]
        shown = cupy.empty((*rows, words), np.uint64)
        sizes = (np.int64(shown.size), *(np.int32(n) for n in rows[1:]))
        grid = -(-shown.size // (_THREADS // 32))
        _BITS.launch("attention_mask_bits", scores.dtype, grid, _THREADS, (shown, *sizes, *scores.arguments))
    if scores.dropped:
        retained = cupy.empty((b, h, t, words), np.uint64)
        arguments = (retained, np.int64(retained.size), *scores.arguments)
        _BITS.launch("attention_kept_bits", scores.dtype, -(-retained.size // _THREADS), _THREADS, arguments)
    steps = (np.int64(0),) * 3 if shown is None else strides(shown, (b, h, t, words))[:3]
    return shown, *steps, retained
