"""Random streams on the device: masks that are not drawn before a kernel uses them.

A mask of dropout is then a key, a place in its stream and a threshold, and costs no memory and no transfer. Its truth
values are the NumPy backend's, bit for bit, and so a run continues on the other backend as it would have on its own.

Read before: `backends/numpy/random.py`. Read next: `philox.cuh`, `dropout.py`.
"""

from __future__ import annotations

import math
from typing import Any

import cupy
import numpy as np

from ..contract import Undrawn
from ..numpy.random import HostGenerator, keys, numbers_each, threshold
from .launch import Source

_SOURCE = Source("random.cu")
_FLOAT = np.dtype(np.float32)  # no kernel here stores any; a compilation wants to know
THREADS = 256
_ROWS = 1 << 15  # blocks along the second axis of a grid, which may have 65535


class PhiloxMask(Undrawn):
    """Truth values of dropout, before they are drawn.

    Element e of a row, counted within the row, is kept where part e % 4 of word `start` + e // 4 of the row's stream
    is below `threshold`; a part is 16 bits, the lowest first.

    Attributes:
        shape: of the truth values.
        keys: of the streams, a device array of uint64, `rows 2`.
        rows: number of the streams, each of which gives as many elements, one after the other.
        start: words of 64 bits that were drawn from each stream before.
        threshold: of 16-bit numbers, up to 65536.
    """

    def __init__(self, shape: tuple[int, ...], keys: Any, start: int, threshold: int) -> None:
        self.shape, self.keys, self.start, self.threshold = shape, keys, start, threshold
        self.rows = keys.shape[0]

    @property
    def count(self) -> int:
        """Elements that each stream gives."""
        return math.prod(self.shape) // max(self.rows, 1)

    @property
    def grid(self) -> tuple[int, int]:
        """Blocks of `THREADS` threads that each draw 16 elements of a row, as `kept_bits` gives them."""
        groups = -(-(self.count + 4 * (self.start % 4)) // 16) if self.count else 0
        return -(-groups // THREADS), min(self.rows, _ROWS)

    def drawn(self) -> Any:
        out = cupy.empty(self.shape, bool)
        arguments = (self.keys, out, np.int32(self.rows), np.int64(self.count), np.uint64(self.start))
        _SOURCE.launch("draw", _FLOAT, self.grid, THREADS, (*arguments, np.uint32(self.threshold)))
        return out


class DeviceGenerator:
    """Streams whose truth values are drawn by kernels, from keys that lie on the device.

    Normal numbers, of which only new weights are made, come from the host. One stream gives either kind, not both: the
    device cannot know how many words the host took.

    Args:
        backend: where the arrays go.
        seed: of the run.
        stream: further integers that tell streams apart, such as the step.
        rows: see `Backend.generator`.
    """

    def __init__(self, backend: Any, seed: int, *stream: int, rows: range | None = None) -> None:
        self._backend, self._rows = backend, None if rows is None else len(rows)
        self._make_host = lambda: HostGenerator(backend, seed, *stream, rows=rows)
        self._make_keys = lambda: backend.from_host(keys(seed, *stream, rows=rows))
        self._host = self._keys = None
        self._words = 0

    @classmethod
    def of(cls, backend: Any, keys: Any) -> DeviceGenerator:
        """See `Backend.generator_of`. Nothing is copied: what the keys are when a kernel runs is what it draws by."""
        generator = cls.__new__(cls)
        generator._backend, generator._rows = backend, None if keys.shape[0] == 1 else keys.shape[0]
        generator._make_host = lambda: HostGenerator.of(backend, backend.to_host(keys))
        generator._host, generator._keys, generator._words = None, keys, 0
        return generator

    def normal(self, shape: tuple[int, ...], dtype: Any) -> Any:
        if self._words:
            raise RuntimeError("this stream gave truth values; normal numbers need one of their own")
        self._host = self._host or self._make_host()
        return self._host.normal(shape, dtype)

    def keep(self, shape: tuple[int, ...], probability: float) -> PhiloxMask:
        if self._host is not None:
            raise RuntimeError("this stream gave normal numbers; truth values need one of their own")
        if self._keys is None:
            self._keys = self._make_keys()
        start, shape = self._words, tuple(shape)
        self._words += -(-numbers_each(shape, self._rows) // 4)
        return PhiloxMask(shape, self._keys, start, threshold(probability))
