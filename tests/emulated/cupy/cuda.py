"""As `cupy.cuda`: devices, streams, memory and graphs."""

from . import memory, runtime, state
from .array import Device
from .memory import (
    MemoryPointer,
    MemoryPool,
    alloc,
    alloc_pinned_memory,
    get_allocator,
    set_allocator,
    using_allocator,
)
from .state import Event, Graph, Stream

__all__ = [
    "Device",
    "Event",
    "Graph",
    "MemoryPointer",
    "MemoryPool",
    "Stream",
    "alloc",
    "alloc_pinned_memory",
    "get_allocator",
    "get_current_stream",
    "get_device_id",
    "get_elapsed_time",
    "get_local_runtime_version",
    "is_available",
    "memory",
    "nvrtc",
    "runtime",
    "set_allocator",
    "using_allocator",
]


def is_available():
    """As CuPy, which swallows whatever is wrong."""
    try:
        return runtime.getDeviceCount() > 0
    except state.CUDARuntimeError:
        return False


def get_current_stream(device_id=-1):
    if device_id in (-1, state.device()):
        return state.stream()
    with Device(device_id):
        return state.stream()


def get_device_id():
    return state.device()


def get_elapsed_time(start_event, end_event):
    return 1.0


class nvrtc:
    """The compiler; a test may make it fail."""

    @staticmethod
    def getVersion():
        return 13, 0


def get_local_runtime_version():
    return 13000
