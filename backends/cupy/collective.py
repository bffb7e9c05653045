"""Arrays of several devices: copied from one to the others, and added up so that all have the same bits.

NCCL adds up over all devices at once, on whatever connects them; it is used where CuPy finds it. Without, the first
device fetches what the others have, adds it up in their order, and they fetch the sum.

Nothing here waits on the host. Each device has its own stream, and where one needs what another makes, its stream is
told to wait for that.

Read before: `device.py`. Read next: `tinyformer/training/device_step.py`.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import cupy
import numpy as np


def copy(source: Any, targets: list[Any]) -> None:
    """Put the numbers of an array into arrays of other devices, of the same shape and dtype, without gaps."""
    ready = _mark(source)
    for target in targets:
        with target.device:
            stream = cupy.cuda.get_current_stream()
            stream.wait_event(ready)
            target.data.copy_from_device_async(source.data, source.nbytes, stream)
    _wait(source, targets)


def add_up(arrays: list[Any]) -> None:
    """Replace arrays of float32 or float64, of one shape and without gaps, one on each device, by their sum."""
    communicators = _nccl(tuple(array.device.id for array in arrays))
    if communicators is not None:
        _by_nccl(arrays, communicators)
        return
    first, *others = arrays
    for other in others:
        ready = _mark(other)
        with first.device:
            stream = cupy.cuda.get_current_stream()
            stream.wait_event(ready)
            fetched = cupy.empty_like(first)
            fetched.data.copy_from_device_async(other.data, other.nbytes, stream)
            first += fetched
    copy(first, others)


def _mark(array: Any) -> Any:
    """An event that passes once everything is done that the array's device was asked for up to now."""
    with array.device:
        event = cupy.cuda.Event(disable_timing=True)
        event.record(cupy.cuda.get_current_stream())
    return event


def _wait(array: Any, others: list[Any]) -> None:
    """Let the array's device do nothing more before the others have done what they were asked for."""
    for event in [_mark(other) for other in others]:
        with array.device:
            cupy.cuda.get_current_stream().wait_event(event)


@functools.cache
def _nccl(devices: tuple[int, ...]) -> list[Any] | None:
    """NCCL's communicators of these devices; None where there is no NCCL, or it finds no way between them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is absent is no news
        try:
            from cupy.cuda import nccl

            return nccl.NcclCommunicator.initAll(list(devices)) if nccl.available else None
        except (ImportError, RuntimeError):
            return None


def _by_nccl(arrays: list[Any], communicators: list[Any]) -> None:
    from cupy.cuda import nccl

    nccl.groupStart()
    for array, communicator in zip(arrays, communicators, strict=True):
        with array.device:
            stream = cupy.cuda.get_current_stream().ptr
            kind = nccl.NCCL_FLOAT64 if array.dtype == np.float64 else nccl.NCCL_FLOAT32
            communicator.allReduce(array.data.ptr, array.data.ptr, array.size, kind, nccl.NCCL_SUM, stream)
    nccl.groupEnd()
