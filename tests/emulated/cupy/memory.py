"""Memory of the emulated devices: blocks that a pool keeps and hands out again, and pages that both sides see.

A block that was freed goes to the next who asks for its size, as with CuPy's pools, and new memory holds rubbish; so
what a recorded step uses after it was freed, or reads before it was written, shows.
"""

import collections
import contextlib
import ctypes
import threading
import weakref

import numpy as np

from . import state

DEVICES = 2
CAPACITY = 8 << 30  # bytes that a device says it has
_ROUND = 512
_lock = threading.RLock()
_pinned = {}  # where pinned memory starts: its bytes
_graveyard = []  # memory that recorded work may name still


class Block:
    """Bytes of one device at an address that is a multiple of 512."""

    def __init__(self, size, device):
        self.size, self.device = size, device
        self._memory = np.empty(size + _ROUND, np.uint8)
        self.address = -(-self._memory.ctypes.data // _ROUND) * _ROUND


class MemoryPointer:
    """A place in device memory. As long as it, or an array on it, lives, the pool keeps the block for it."""

    def __init__(self, lease, offset, device):
        self._lease, self._offset, self.device_id = lease, offset, device

    @property
    def ptr(self):
        return ctypes.addressof(self._lease) + self._offset

    mem = property(lambda self: self)

    def __int__(self):
        return self.ptr

    def __add__(self, offset):
        return MemoryPointer(self._lease, self._offset + offset, self.device_id)

    def copy_from_host_async(self, mem, size, stream=None):
        source = getattr(mem, "value", mem)
        if not is_pinned(source, size):
            state.forbid("a copy from memory that is not pinned")
        target = self.ptr
        state.enqueue(lambda: ctypes.memmove(target, source, size), stream)

    def copy_from_host(self, mem, size):
        state.forbid("a copy that waits")
        ctypes.memmove(self.ptr, getattr(mem, "value", mem), size)

    def copy_to_host_async(self, mem, size, stream=None):
        target, source = getattr(mem, "value", mem), self.ptr
        if not is_pinned(target, size):
            state.forbid("a copy into memory that is not pinned")
        state.enqueue(lambda: ctypes.memmove(target, source, size), stream)

    def copy_to_host(self, mem, size):
        state.transfer()
        ctypes.memmove(getattr(mem, "value", mem), self.ptr, size)

    def copy_from_device_async(self, src, size, stream=None):
        target, source = self.ptr, src.ptr
        state.enqueue(lambda: ctypes.memmove(target, source, size), stream)

    copy_from_device = copy_from_device_async

    def memset_async(self, value, size, stream=None):
        target = self.ptr
        state.enqueue(lambda: ctypes.memset(target, value, size), stream)

    memset = memset_async


class MemoryPool:
    """Blocks by device and size; the last one freed is the first one used again."""

    def __init__(self, allocator=None):
        self._free = collections.defaultdict(list)
        self._total = collections.Counter()

    def malloc(self, size):
        size = max(-(-int(size) // _ROUND), 1) * _ROUND
        device = state.device()
        with _lock:
            waiting = self._free[device, size]
            if waiting:
                block = waiting.pop()
            else:
                block = Block(size, device)
                self._total[device] += size
        lease = (ctypes.c_char * size).from_address(block.address)
        ctypes.memset(block.address, 0xFF, min(size, 1 << 20))
        weakref.finalize(lease, self._release, block).atexit = False
        return MemoryPointer(lease, 0, device)

    def _release(self, block):
        with _lock:
            self._free[block.device, block.size].append(block)

    def free_all_blocks(self, stream=None):
        with _lock:
            for (device, size), blocks in self._free.items():
                self._total[device] -= size * len(blocks)
                if state.recordings:
                    for block in blocks:
                        ctypes.memset(block.address, 0xFF, size)
                    _graveyard.extend(blocks)
            self._free.clear()

    def total_bytes(self):
        return self._total[state.device()]

    def free_bytes(self):
        return sum(size * len(blocks) for (device, size), blocks in self._free.items() if device == state.device())

    def used_bytes(self):
        return self.total_bytes() - self.free_bytes()

    def n_free_blocks(self):
        return sum(len(blocks) for (device, _), blocks in self._free.items() if device == state.device())

    def set_limit(self, size=None, fraction=None):
        self._limit = int(fraction * CAPACITY) if size is None else size

    def get_limit(self):
        return getattr(self, "_limit", 0)


default_pool = MemoryPool()
_global_allocator = default_pool.malloc
_local = threading.local()


def set_allocator(allocator=None):
    global _global_allocator
    if getattr(_local, "allocator", None) is not None:
        raise ValueError("Can't change the global allocator inside `using_allocator` context manager")
    _global_allocator = allocator or (lambda size: MemoryPool().malloc(size))


def get_allocator():
    return getattr(_local, "allocator", None) or _global_allocator


@contextlib.contextmanager
def using_allocator(allocator=None):
    before = getattr(_local, "allocator", None)
    _local.allocator = allocator or (lambda size: MemoryPool().malloc(size))
    try:
        yield
    finally:
        _local.allocator = before


def alloc(size):
    return get_allocator()(size)


def alloc_pinned_memory(size):
    """Host memory that a device reads and writes; it gives a buffer, as CuPy's does."""
    pages = np.empty(max(int(size), 1), np.uint8)
    pages.fill(0xFF)
    kind = type("PinnedMemoryPointer", (ctypes.c_char * len(pages),), {})
    pointer = kind.from_buffer(pages)
    pointer.ptr, pointer.mem = pages.ctypes.data, pages
    pointer.size = lambda: len(pages)
    _pinned[pointer.ptr] = len(pages)
    weakref.finalize(pointer, _pinned.pop, pointer.ptr).atexit = False
    return pointer


def is_pinned(address, size):
    return any(start <= address and address + size <= start + length for start, length in _pinned.items())
