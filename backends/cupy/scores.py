"""What attention's kernels are told: where arrays lie, what may be seen, what is added, and what is dropped.

Two implementations share this: `attention_blocks.py`, for any width and in float32's full precision, and
`attention_mma.py`, by tensor cores. Read before: `attention.py`. Read next: `scores.cuh`, the same on the device.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from .random import PhiloxMask

WIDEST = 256  # channels of a head
LONGEST = 1 << 30  # positions, so that a sum of two is an integer of 32 bits
_NO_STRIDES = (np.int64(0),) * 4


def heads_last(shape: tuple[int, ...], dtype: Any) -> Any:
    """An empty array `b h t c`, in memory laid out as `b t h c`, so that joining the heads is free."""
    b, h, t, c = shape
    return cupy.empty((b, t, h, c), dtype).transpose(0, 2, 1, 3)


def together(x: Any) -> Any:
    """The same array, copied if its channels do not lie side by side."""
    return x if x.shape[-1] == 1 or x.strides[-1] == x.itemsize else cupy.ascontiguousarray(x)


def strides(x: Any, shape: tuple[int, ...]) -> tuple[np.int64, ...]:
    """How many elements apart neighbours lie along each axis of `shape`, which x may be repeated to: then 0."""
    short = len(shape) - x.ndim
    steps = [0] * short + [0 if n == 1 else step // x.itemsize for n, step in zip(x.shape, x.strides)]
    return tuple(np.int64(step) for step in steps)


class Scores:
    """One call of attention, with its arrays made fit for kernels.

    Attributes:
        query: `b h t c`, channels side by side; the rest of its memory in any order.
        key: `b|1 h|1 s c`, likewise.
        value: as the keys.
        mask: broadcastable to `b h t s`, or None.
        bias: likewise.
        shape: `b h t s`.
        width: of a head, `c`.
        dtype: of the numbers: float32 or bfloat16.
        causal: whether a query sees only its own and earlier keys; the last query stands at the last key.
        scale: of the products of queries and keys.
        arguments: the kernel parameters `SCORES_PARAMETERS` of `scores.cuh`.
        bits: what `attention_mma.py` makes of the mask and of dropout.
    """

    def __init__(self, query, key, value, mask, bias, keep, *, causal, scale, dropout_rate) -> None:
        self.query, self.key, self.value, self.bias = together(query), together(key), together(value), bias
        self.shape, self.width, self.dtype = (*query.shape[:3], key.shape[2]), query.shape[3], query.dtype
        self.causal, self.scale = causal, self.width**-0.5 if scale is None else scale
        self.mask, self.dropped, self.bits = mask, keep is not None, None
        drawn = isinstance(keep, PhiloxMask)
        truths = None if keep is None or drawn else cupy.ascontiguousarray(keep)
        _, h, t, s = self.shape
        self.arguments = (
            *(np.int32(n) for n in (h, t, s, self.width, causal)),
            np.float32(self.scale),
            mask,
            *(_NO_STRIDES if mask is None else strides(mask, self.shape)),
            bias,
            *(_NO_STRIDES if bias is None else strides(bias, self.shape)),
            truths,
            keep.keys if drawn else None,
            np.int32(keep.rows if drawn else 1),
            np.uint64(keep.start if drawn else 0),
            np.uint32(keep.threshold if drawn else 0),
            np.float32(1.0 / (1.0 - dropout_rate) if keep is not None else 1.0),
        )

    def of_queries(self, x: Any) -> tuple[Any, ...]:
        """An array `b h t c` as kernel arguments: itself, and its strides along b, h and t."""
        return (x, *strides(x, (*self.shape[:3], self.width))[:3])

    def of_keys(self, x: Any) -> tuple[Any, ...]:
        """An array `b|1 h|1 s c` as kernel arguments: itself, and its strides along b, h and s; 0 where shared."""
        b, h, _, s = self.shape
        return (x, *strides(x, (b, h, s, self.width))[:3])


def supports(query, key, value, mask, bias, keep, *, causal, scale, dropout_rate) -> bool:
    """What does not fit together is left to the reference, which says so; and a causal query without a key."""
    shape = (*query.shape[:3], *key.shape[2:3])
    return (
        query.ndim == 4
        and query.dtype.name in ("float32", "bfloat16")
        and query.dtype == key.dtype == value.dtype
        and 0 not in query.shape + key.shape
        and query.shape[3] <= WIDEST
        and max(query.shape[2], key.shape[2]) <= LONGEST
        and query.shape[3:] == key.shape[3:]
        and key.shape == value.shape
        and repeats(key.shape[:2], query.shape[:2])
        and (mask is None or (mask.dtype == bool and repeats(mask.shape, shape)))
        and (bias is None or (bias.dtype == query.dtype and repeats(bias.shape, shape)))
        and (keep is None or (keep.shape == shape and (isinstance(keep, PhiloxMask) or keep.dtype == bool)))
        and not (causal and key.shape[2] < query.shape[2])
    )


def repeats(small: tuple[int, ...], full: tuple[int, ...]) -> bool:
    """Whether an array of the one shape can be repeated to the other."""
    return len(small) <= len(full) and all(n in (1, m) for n, m in zip(small[::-1], full[::-1]))
