"""Random streams: Philox, a counter-based generator (Salmon 2011), so that a stream is a pure function of its key."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


class HostGenerator:
    """Numbers drawn on the host and handed to a backend: the same on every backend.

    Args:
        backend: where the arrays go.
        seed: of the run.
        stream: further integers that tell streams apart, such as the step.
        rows: see `Backend.generator`.
    """

    def __init__(self, backend: Any, seed: int, *stream: int, rows: range | None = None) -> None:
        self._backend, self._rows = backend, rows
        keys = [stream] if rows is None else [(*stream, row) for row in rows]
        sequences = [np.random.SeedSequence(seed, spawn_key=key) for key in keys]
        self._streams = [np.random.Generator(np.random.Philox(sequence)) for sequence in sequences]

    def normal(self, shape: tuple[int, ...], dtype: Any) -> Any:
        count = self._count(shape)
        drawn = np.stack([stream.standard_normal(count) for stream in self._streams])
        return self._backend.from_host(drawn.reshape(shape), dtype)

    def keep(self, shape: tuple[int, ...], probability: float) -> Any:
        count = self._count(shape)
        words = -(-count // 4)  # four times 16 bits in each; a float32 for each number would cost thrice
        kept = np.empty((len(self._streams), count), np.bool)
        for stream, row in zip(self._streams, kept):
            bits = stream.bit_generator.random_raw(words).view(np.uint16)
            np.less(bits[:count], round(probability * (1 << 16)), out=row)
        return self._backend.from_host(kept.reshape(shape))

    def _count(self, shape: tuple[int, ...]) -> int:
        """How many numbers each stream has to give."""
        if self._rows is not None and shape[0] != len(self._rows):
            raise ValueError(f"these streams are for {len(self._rows)} rows, and the shape {shape} has {shape[0]}")
        return math.prod(shape) // len(self._streams)
