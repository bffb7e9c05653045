"""Multi-head attention, and the cache of keys and values that makes generating a token cost one token.

One class serves every transformer: self-attention and cross-attention, causal or not, with or without a mask, a bias of
the scores, rotary positions and a cache.

Read before: `layers.py`, `functional.attention`. Read next: `blocks.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from einops import rearrange

from .. import backends, fused
from ..backends import Generator
from ..tensor import Array, Tensor
from .layers import Linear
from .module import Initializer, Module


class KeysValues(NamedTuple):
    """What queries look at: keys and values, each `b h s c`."""

    keys: Tensor
    values: Tensor


class LayerCache:
    """The keys and values of one layer for the positions that have been read.

    Args:
        shape: `b h s c`, with `s` the most positions it can hold.
        xp: the array namespace.
        dtype: of the model.
        memory: what the layer's cross-attention looks at, computed once; a batch of 1 serves all rows.
    """

    def __init__(
        self, shape: tuple[int, int, int, int], xp: Any, dtype: Any, *, memory: KeysValues | None = None
    ) -> None:
        self.keys, self.values = xp.empty(shape, dtype=dtype), xp.empty(shape, dtype=dtype)
        self.length = 0
        self.memory = memory

    def append(self, keys: Array, values: Array) -> KeysValues:
        """Store the keys and values of the next positions, `b h t c`, and return those of all so far."""
        stop = self.length + keys.shape[2]
        if stop > self.keys.shape[2]:
            raise ValueError(f"the cache holds {self.keys.shape[2]} positions, and {stop} were to be stored")
        self.keys[:, :, self.length : stop, :] = keys
        self.values[:, :, self.length : stop, :] = values
        self.length = stop
        return KeysValues(Tensor(self.keys[:, :, :stop, :]), Tensor(self.values[:, :, :stop, :]))

    def select(self, rows: Array) -> None:
        """Let batch row i continue what was row rows[i]. Copied is what is filled, and of rows that moved."""
        self.keys, self.values = (self._rows(array, rows) for array in (self.keys, self.values))
        if self.memory is not None and self.memory.keys.shape[0] > 1:
            xp = backends.of(self.keys)
            rows = xp.from_host(rows)
            self.memory = KeysValues(*(Tensor(xp.take(x.array, rows, axis=0)) for x in self.memory))

    def _rows(self, array: Array, rows: Array) -> Array:
        xp, count, filled = backends.of(array), rows.shape[0], array[:, :, : self.length, :]
        if count > array.shape[0]:
            array, moved = xp.empty((count, *array.shape[1:]), dtype=array.dtype), list(range(count))
        else:
            array, moved = array[:count, ...], [i for i in range(count) if rows[i] != i]
        if moved:
            chosen = xp.take(filled, xp.from_host(rows[moved]), axis=0)
            for i, row in enumerate(moved):
                array[row, :, : self.length, :] = chosen[i, ...]
        return array


class Cache:
    """The caches of all layers: what a model remembers of the tokens that it has read.

    Args:
        layers: one for each block.
    """

    def __init__(self, layers: list[LayerCache]) -> None:
        self.layers = layers

    @property
    def length(self) -> int:
        """How many positions have been read."""
        return self.layers[0].length

    @property
    def capacity(self) -> int:
        """How many positions it can hold."""
        return self.layers[0].keys.shape[2]

    def select(self, rows: Array) -> None:
        """Let batch row i continue what was row rows[i]; `rows` are integers, `b`, and may repeat."""
        for layer in self.layers:
            layer.select(rows)

    def shorten(self, length: int) -> None:
        """Forget what was read after the first `length` positions."""
        for layer in self.layers:
            layer.length = min(length, layer.length)


class Attention(Module):
    """Multi-head attention (Vaswani 2017, §3.2.2).

    Args:
        width: of the model, `d`.
        heads: how many; they share the width evenly unless `head_width` is given.
        init: makes the parameters.
        head_width: channels of each head, `c`; default d / heads.
        bias: whether the four linear maps have one.
        dropout: of the attention weights, in training.
        scaled: whether scores are divided by √c. Without, as in T5, the queries' initial weights are.
        std: of the maps' weights at the start, as in `Linear`.
        output_std: of the output map's.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        init: Initializer,
        *,
        head_width: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        scaled: bool = True,
        std: float | None = 0.02,
        output_std: float | None = 0.02,
    ) -> None:
        channels = head_width or width // heads
        inner, std = heads * channels, width**-0.5 if std is None else std
        self.query = Linear(width, inner, init, bias=bias, std=std if scaled else std * channels**-0.5)
        self.key = Linear(width, inner, init, bias=bias, std=std)
        self.value = Linear(width, inner, init, bias=bias, std=std)
        self.output = Linear(inner, width, init, bias=bias, std=output_std)
        self.heads, self.dropout, self.scale = heads, dropout, None if scaled else 1.0

    def keys_values(self, x: Tensor) -> KeysValues:
        """What queries see of `x`, `b s d`."""
        return KeysValues(self._heads(self.key(x)), self._heads(self.value(x)))

    def __call__(
        self,
        x: Tensor,
        *,
        memory: KeysValues | None = None,
        mask: Array | None = None,
        bias: Tensor | None = None,
        causal: bool = False,
        angles: tuple[Array, Array] | None = None,
        cache: LayerCache | None = None,
        rng: Generator | None = None,
    ) -> Tensor:
        """Let each position of x look at positions of itself, or at `memory`.

        Args:
            x: `b t d`.
            memory: what is looked at in cross-attention, from `keys_values`; default x.
            mask: True where a query may look, broadcastable to `b h t s`; with a cache, over all positions read.
            bias: added to the scores, broadcastable to `b h t s`.
            causal: a position sees only itself and earlier ones.
            angles: of rotary positions, for the positions of x.
            cache: earlier positions' keys and values; those of x are added. Under `no_grad` only.
            rng: given in training, for dropout.

        Returns:
            `b t d`.
        """
        query = self._heads(self.query(x))
        seen = self.keys_values(x) if memory is None else memory
        if angles is not None:
            query = fused.rotary(query, *angles)
            seen = seen._replace(keys=fused.rotary(seen.keys, *angles))
        if cache is not None and memory is None:
            if seen.keys.requires_grad:
                raise RuntimeError("a cache keeps no gradients: use it under tinyformer.no_grad()")
            seen = cache.append(seen.keys.array, seen.values.array)
        keep = None
        if rng is not None and self.dropout:
            keep = rng.keep((x.shape[0], self.heads, x.shape[1], seen.keys.shape[2]), 1.0 - self.dropout)
        settings = {"causal": causal, "scale": self.scale, "dropout_rate": self.dropout}
        rows = x.shape[0]
        if memory is not None and rows > seen.keys.shape[0] and mask is bias is keep is None and not causal:
            query = rearrange(query, "b h t c -> 1 h (b t) c")  # rows that share a memory ask it together
            out = fused.attention(query, *seen, **settings)
            return self.output(rearrange(out, "1 h (b t) c -> b t (h c)", b=rows))
        out = fused.attention(query, *seen, mask, bias, keep, **settings)
        return self.output(rearrange(out, "b h t c -> b t (h c)"))

    def _heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "b t (h c) -> b h t c", h=self.heads)
