"""Random streams: Philox, a counter-based generator (Salmon 2011), so that a stream is a pure function of its key."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def _sequences(seed: int, *stream: int, rows: range | None) -> list[np.random.SeedSequence]:
    streams = [stream] if rows is None else [(*stream, row) for row in rows]
    return [np.random.SeedSequence(seed, spawn_key=numbers) for numbers in streams]


def keys(seed: int, *stream: int, rows: range | None = None) -> np.ndarray:
    """The keys of Philox for the streams of these integers, uint64 `rows 2`; see `Backend.generator`."""
    states = [sequence.generate_state(2, np.uint64) for sequence in _sequences(seed, *stream, rows=rows)]
    return np.array(states, np.uint64).reshape(-1, 2)


def threshold(probability: float) -> int:
    """Of the 2¹⁶ values that 16 random bits have, how many are below it with this probability."""
    return round(probability * (1 << 16))


def numbers_each(shape: tuple[int, ...], streams: int | None) -> int:
    """How many numbers of an array each stream has to give; None for one stream that gives them all."""
    if streams is None:
        return math.prod(shape)
    if shape[0] != streams:
        raise ValueError(f"these streams are for {streams} rows, and the shape {shape} has {shape[0]}")
    return math.prod(shape[1:])


class HostGenerator:
    """Numbers drawn on the host and handed to a backend: the same on every backend.

    Args:
        backend: where the arrays go.
        seed: of the run.
        stream: further integers that tell streams apart, such as the step.
        rows: see `Backend.generator`.
    """

    def __init__(self, backend: Any, seed: int, *stream: int, rows: range | None = None) -> None:
        philox = [np.random.Philox(sequence) for sequence in _sequences(seed, *stream, rows=rows)]
        self._start(backend, philox, None if rows is None else len(rows))

    @classmethod
    def of(cls, backend: Any, keys: np.ndarray) -> HostGenerator:
        """See `Backend.generator_of`."""
        generator = cls.__new__(cls)
        generator._start(backend, [np.random.Philox(key=key) for key in keys], None if len(keys) == 1 else len(keys))
        return generator

    def _start(self, backend: Any, philox: list[np.random.Philox], rows: int | None) -> None:
        self._backend, self._rows = backend, rows
        self._streams = [np.random.Generator(bits) for bits in philox]

    def normal(self, shape: tuple[int, ...], dtype: Any) -> Any:
        count = numbers_each(shape, self._rows)
        drawn = np.stack([stream.standard_normal(count) for stream in self._streams])
        return self._backend.from_host(drawn.reshape(shape), dtype)

    def keep(self, shape: tuple[int, ...], probability: float) -> Any:
        count = numbers_each(shape, self._rows)
        words = -(-count // 4)  # four times 16 bits in each; a float32 for each number would cost thrice
        kept = np.empty((len(self._streams), count), np.bool)
        for stream, row in zip(self._streams, kept):
            bits = stream.bit_generator.random_raw(words).view(np.uint16)
            np.less(bits[:count], threshold(probability), out=row)
        return self._backend.from_host(kept.reshape(shape))
