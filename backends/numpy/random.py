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
        stream: further integers that tell streams apart, such as the step and the micro-batch.
    """

    def __init__(self, backend: Any, seed: int, *stream: int) -> None:
        self._backend = backend
        self._numbers = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=stream)))

    def normal(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._backend.from_host(self._numbers.standard_normal(shape), dtype)

    def keep(self, shape: tuple[int, ...], probability: float) -> Any:
        count = math.prod(shape)
        bits = self._numbers.bit_generator.random_raw(-(-count // 4)).view(np.uint16)  # a float32 would cost thrice
        return self._backend.from_host((bits[:count] < round(probability * (1 << 16))).reshape(shape))
