"""CuPy as a backend: the namespace is CuPy's, and what it lacks, or does by waiting for the GPU, is filled in.

Operations are enqueued, and the host goes on. It waits in `to_host` and nowhere else.

CuPy computes with bfloat16, but not everything, and not always in it: sums lose small terms, `where` and products with
Python's floats give float32. What is here adds up in float32, and gives bfloat16 for bfloat16.

Read before: `backends/contract.py`. Read next: `device.py`, `kernels.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import cupy
import ml_dtypes
import numpy as np
from cupyx.scipy import special

from ..contract import Array, Backend
from . import collective, device, lookup, products
from .graphs import Recorded
from .kernels import KERNELS, UPDATES
from .random import DeviceGenerator

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def _is_half(*arrays: Any) -> bool:
    return any(getattr(x, "dtype", None) == BFLOAT16 for x in arrays)


class CupyBackend(Backend):
    """One NVIDIA GPU."""

    name = "cupy"
    alignment = 16
    bfloat16 = ml_dtypes.bfloat16

    def __init__(self) -> None:
        super().__init__(cupy)
        self.kernels, self.updates = KERNELS, UPDATES

    # Between host and device

    def from_host(self, array: Any, dtype: Any = None) -> Array:
        """A NumPy array, a list or a number as an array of the device; one of the device as it is.

        CuPy copies into pinned memory first, and from there while the host goes on.
        """
        if isinstance(array, cupy.ndarray):
            return array if dtype is None or array.dtype == dtype else array.astype(dtype)
        return cupy.asarray(np.asarray(array, dtype))

    def to_host(self, array: Array) -> Any:
        """An array of the device as a NumPy array, once everything enqueued before is done; bfloat16 as float32.

        Raises:
            IndexError: an index was wrong in what was enqueued before; see `check_indices`.
        """
        if isinstance(array, np.ndarray | np.generic):
            return np.asarray(array)
        host = array.get(order="A")
        device.faults().check()
        return host.astype(np.float32) if host.dtype == BFLOAT16 else host

    def description(self) -> dict[str, Any]:
        """What the device is, with the versions of what drives it."""
        return device.description()

    def memory(self) -> tuple[int, int, int]:
        """Bytes of the device that are free, that it has, and that arrays take."""
        return device.memory()

    # Several devices

    def devices(self) -> int:
        return cupy.cuda.runtime.getDeviceCount()

    def on(self, device: int) -> AbstractContextManager[Any]:
        return cupy.cuda.Device(device)

    def copy(self, source: Array, targets: list[Array]) -> None:
        collective.copy(source, targets)

    def add_up(self, arrays: list[Array]) -> None:
        collective.add_up(arrays)

    # Types

    def isdtype(self, dtype: Any, kind: Any) -> bool:
        if dtype != BFLOAT16:
            return cupy.isdtype(dtype, kind)
        kinds = kind if isinstance(kind, tuple) else (kind,)
        return any(k in ("real floating", "numeric") or (not isinstance(k, str) and k == BFLOAT16) for k in kinds)

    def is_floating(self, array: Array) -> bool:
        return array.dtype.kind == "f" or array.dtype == BFLOAT16

    # What CuPy lacks

    def unstack(self, x: Array, /, *, axis: int = 0) -> tuple[Array, ...]:
        return tuple(cupy.moveaxis(x, axis, 0))

    def vecdot(self, a: Array, b: Array, /, *, axis: int = -1) -> Array:
        if not _is_half(a, b):
            return cupy.sum(a * b, axis=axis)
        return cupy.sum(cupy.multiply(a, b, dtype=np.float32), axis=axis).astype(cupy.result_type(a, b), copy=False)

    def erf(self, x: Array) -> Array:
        single = x.astype(np.float32) if x.dtype.itemsize == 2 else x
        return special.erf(single).astype(x.dtype, copy=False)

    # What CuPy does in another type than bfloat16, or with too few digits

    def sum(self, x: Array, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Array:
        if not _is_half(x):
            return cupy.sum(x, axis=axis, dtype=dtype, keepdims=keepdims)
        return cupy.sum(x, axis=axis, dtype=np.float32, keepdims=keepdims).astype(dtype or BFLOAT16, copy=False)

    def mean(self, x: Array, /, *, axis: Any = None, keepdims: bool = False) -> Array:
        if not _is_half(x):
            return cupy.mean(x, axis=axis, keepdims=keepdims)
        total = cupy.sum(x, axis=axis, dtype=np.float32, keepdims=keepdims)
        return (total / (x.size / max(total.size, 1))).astype(BFLOAT16)

    def where(self, condition: Array, a: Any, b: Any, /) -> Array:
        chosen = cupy.where(condition, a, b)
        arrays = [x for x in (a, b) if hasattr(x, "dtype")]
        return chosen.astype(BFLOAT16) if arrays and all(map(_is_half, arrays)) else chosen

    def clip(self, x: Array, /, min: Any = None, max: Any = None) -> Array:
        return cupy.clip(x, min, max).astype(x.dtype, copy=False)

    # Look-ups

    def check_indices(self, indices: Array, size: int, what: str) -> None:
        """As the contract says, but that an IndexError is raised by the next `to_host`."""
        if not self.isdtype(indices.dtype, "integral"):
            raise TypeError(f"{what} must be integers, and these are {indices.dtype}")
        lookup.check_indices(indices, size, device.faults().place(what))

    def take(self, x: Array, indices: Array, /, *, axis: int | None = None) -> Array:
        return lookup.take(x, indices) if axis == 0 and x.shape[0] else cupy.take(x, indices, axis=axis)

    def scatter_add(self, shape: tuple[int, ...], indices: Array, values: Array) -> Array:
        add = lookup.scatter_add if lookup.adds(shape, indices, values) else super().scatter_add
        return add(shape, indices, values)

    # Random numbers

    def generator(self, seed: int, *stream: int, rows: range | None = None) -> DeviceGenerator:
        return DeviceGenerator(self, seed, *stream, rows=rows)

    def generator_of(self, keys: Array) -> DeviceGenerator:
        return DeviceGenerator.of(self, keys)

    # Products

    def matmul(self, a: Array, b: Array) -> Array:
        return products.matmul(a, b)

    def recorded(
        self, function: Callable[..., Any], *, record: bool = True, warn: Callable[[str], None] | None = None
    ) -> Callable[..., Any]:
        return Recorded(function, record=record, warn=warn)

    def rounding(self, precision: str) -> AbstractContextManager[None]:
        return products.rounding(precision)
