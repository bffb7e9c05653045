"""The device behind the arrays: what it is, what memory it has, and what its kernels say went wrong.

Faults. A kernel cannot raise, and to ask it after each look-up would make the host wait. So a kernel that meets an
index outside its table writes into memory that the host sees, too, and who next waits for numbers (`to_host`) looks
there. Each kind of index, such as "targets", has a place of four 64-bit integers, whose address is given to the kernel:

    low, high, size, 0      the smallest and the largest index that it met, and the size that they exceed

`size` is 0 where nothing went wrong, and is written last. The first fault stays until it is raised.

Read before: `backend.py`. Read next: `lookup.py`.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

import cupy
import numpy as np

_PLACES, _NUMBERS = 64, 4


class Faults:
    """Places in pinned memory where the kernels of all devices tell of wrong indices."""

    def __init__(self) -> None:
        self._memory = cupy.cuda.alloc_pinned_memory(8 * _NUMBERS * _PLACES)
        self._numbers = np.frombuffer(self._memory, np.int64, _NUMBERS * _PLACES).reshape(_PLACES, _NUMBERS)
        self._numbers[...] = 0
        self._names: list[str] = []
        self._lock = threading.Lock()

    def place(self, what: str) -> np.uint64:
        """The address where a kernel tells of wrong `what`, such as "indices"; the same one in each call."""
        with self._lock:
            if what not in self._names:
                if len(self._names) == _PLACES:
                    raise RuntimeError(f"there are no more than {_PLACES} kinds of indices; {what!r} is one too many")
                self._names.append(what)
            return np.uint64(self._memory.ptr + 8 * _NUMBERS * self._names.index(what))

    def check(self) -> None:
        """Raise the IndexError of a fault that a kernel told of, once; what was enqueued must have ended."""
        if not self._numbers[:, 2].any():
            return
        with self._lock:
            for what, numbers in zip(self._names, self._numbers):
                low, high, size, _ = numbers.tolist()
                if size:
                    numbers[...] = 0
                    raise IndexError(f"{what} run from {low} to {high}, and must lie in 0 to {size - 1}")


@functools.cache
def faults() -> Faults:
    """The places of this process."""
    return Faults()


def description() -> dict[str, Any]:
    """What computes: for a report, and to tell whether two runs had the same device and libraries."""
    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(runtime.getDevice())
    return {
        "device": properties["name"].decode(),
        "compute capability": f"{properties['major']}.{properties['minor']}",
        "driver": _version(runtime.driverGetVersion()),
        "runtime": _version(cupy.cuda.get_local_runtime_version()),
        "cupy": cupy.__version__,
    }


def _version(number: int) -> str:
    """CUDA's version 13020 as 13.2."""
    return f"{number // 1000}.{number % 1000 // 10}"


def memory() -> tuple[int, int, int]:
    """Bytes of the current device that are free, that it has, and that arrays of this process take."""
    free, total = cupy.cuda.runtime.memGetInfo()
    pool = cupy.get_default_memory_pool()
    return free + pool.free_bytes(), total, pool.used_bytes()
