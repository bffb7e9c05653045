"""Telling a transformer where a token stands: attention alone treats its input as a set.

Learned positions are an `Embedding`. Here are two kinds that need no parameters, and a learned bias of the attention
scores that depends on the distance alone.

Read before: `layers.py`. Read next: `attention.py`.
"""

from __future__ import annotations

import math
from typing import Any

from einops import rearrange

from .. import functional
from ..tensor import Array, Tensor
from .module import Initializer, Module


def _sines_cosines(xp: Any, positions: Array, pairs: int, base: float, dtype: Any) -> tuple[Array, Array]:
    """Of position times frequency, each `... t pairs`; the wavelengths grow geometrically from 2π to 2π base.

    In double precision up to the end: the angle of a far position has few digits behind the point.
    """
    powers = xp.arange(pairs, dtype=xp.float64) / pairs
    angles = xp.astype(positions, xp.float64)[..., None] * base**-powers
    return xp.astype(xp.sin(angles), dtype), xp.astype(xp.cos(angles), dtype)


def sinusoidal(xp: Any, positions: Array, width: int, dtype: Any) -> Array:
    """Sines and cosines of growing wavelength, added to the embeddings (Vaswani 2017, §3.5).

    Args:
        xp: the array namespace.
        positions: integers, `... t`.
        width: of the model, even.
        dtype: of the result.

    Returns:
        `... t d`: sines in the even channels, cosines in the odd ones.
    """
    both = _sines_cosines(xp, positions, width // 2, 10000.0, dtype)
    return xp.reshape(xp.stack(both, axis=-1), (*positions.shape, width))


def rotary_angles(xp: Any, positions: Array, width: int, dtype: Any, *, base: float = 10000.0) -> tuple[Array, Array]:
    """Cosines and sines for `functional.rotary` (Su 2021, §3.4.2).

    Args:
        xp: the array namespace.
        positions: integers, `t`.
        width: of a head, even.
        dtype: of the result.
        base: of the wavelengths.

    Returns:
        Two arrays `t c/2`.
    """
    sines, cosines = _sines_cosines(xp, positions, width // 2, base, dtype)
    return cosines, sines


def relative_buckets(xp: Any, distance: Array, *, buckets: int, max_distance: int, bidirectional: bool) -> Array:
    """A bucket for each distance: near ones have their own, far ones share, by the logarithm (Raffel 2020, §2.1).

    Args:
        xp: the array namespace.
        distance: of the key from the query, integers: position of the key less that of the query.
        buckets: how many there are.
        max_distance: all beyond share the last bucket.
        bidirectional: the second half of the buckets is for keys after the query; without, these share bucket 0.

    Returns:
        Integers in [0, buckets), of the shape of `distance`.
    """
    first = xp.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        first = xp.where(distance > 0, buckets, first)
        distance = xp.abs(distance)
    else:
        distance = xp.maximum(-distance, first)
    exact = buckets // 2  # distances below this have a bucket each
    # In single precision, as in the published models: rounding decides where a power of the base falls.
    ratio = xp.astype(xp.maximum(distance, exact), xp.float32) / exact
    octaves = xp.log(ratio) / math.log(max_distance / exact) * (buckets - exact)
    far = xp.minimum(exact + xp.astype(octaves, distance.dtype), buckets - 1)
    return first + xp.where(distance < exact, distance, far)


class RelativePositions(Module):
    """A learned bias of the attention scores for each bucket of distances and each head (T5: Raffel 2020, §2.1).

    Args:
        heads: of the attention.
        init: makes the table, `buckets h`.
        buckets: kinds of distances.
        max_distance: all beyond share a bucket.
        bidirectional: whether a key may stand after the query.
        std: of the table at the start.
    """

    def __init__(
        self, heads: int, init: Initializer, *, buckets: int, max_distance: int, bidirectional: bool, std: float
    ) -> None:
        self.weight = init.normal(buckets, heads, std=std)
        self.kinds = {"buckets": buckets, "max_distance": max_distance, "bidirectional": bidirectional}

    def __call__(self, queries: Array, keys: Array) -> Tensor:
        """The bias for queries and keys at these positions, integers `t` and `s`: `1 h t s`."""
        xp = self.weight.backend
        ids = relative_buckets(xp, keys[None, :] - queries[:, None], **self.kinds)
        return rearrange(functional.embedding(self.weight, ids), "t s h -> 1 h t s")
