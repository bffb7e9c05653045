"""CUDA sources compiled for this machine, and launched as CuPy launches them."""

import functools

import numpy as np

from tests.emulated import compiler

from . import state
from .array import ndarray


class RawModule:
    """The kernels of a source, compiled at the first use of one."""

    def __init__(self, code=None, *, path=None, options=(), backend="nvrtc", **others):
        if not isinstance(code, str) or not isinstance(options, tuple):
            raise TypeError("code must be a str, and options a tuple of them")
        self.code, self.options, self.backend = code, options, backend

    @functools.cached_property
    def _module(self):
        return compiler.compile(self.code, self.options)

    def compile(self, log_stream=None):
        return self._module and None

    def get_function(self, name):
        return RawKernel(self, name)


class RawKernel:
    """A kernel; `kernel(grid, block, arguments, shared_mem=bytes)` enqueues it on the current stream."""

    def __init__(self, module, name):
        self.name, self._function = name, module._module.function(name)
        self.max_dynamic_shared_size_bytes = 48 << 10
        self.preferred_shared_memory_carveout = -1
        self.local_size_bytes = self.const_size_bytes = 0
        self.num_regs, self.max_threads_per_block = 32, 1024

    def __call__(self, grid, block, args, **settings):
        shared = settings.pop("shared_mem", 0)
        stream = settings.pop("stream", None)
        if settings:
            raise TypeError(f"unexpected {sorted(settings)}")
        if shared > self.max_dynamic_shared_size_bytes:
            raise state.CUDARuntimeError(1)
        function, values = self._function, tuple(self._value(arg) for arg in args)
        grid, block = (tuple(int(n) for n in size) for size in (grid, block))
        state.counts["launches"] += 1
        state.enqueue(lambda: function(grid, block, values, shared), stream)

    @staticmethod
    def _value(arg):
        """Its bytes: arrays by their addresses and the bytes that are theirs, Python's numbers as 8 bytes."""
        if isinstance(arg, ndarray):
            if arg._pointer.device_id != state.device():
                raise ValueError("a kernel was given an array of another device than the current one")
            return compiler.Memory.of(arg._host)
        if isinstance(arg, bool):
            return np.bool_(arg)
        if isinstance(arg, int):
            return np.int64(arg)
        if isinstance(arg, float):
            return np.float64(arg)
        if isinstance(arg, np.generic):
            return arg
        if hasattr(arg, "ptr"):
            return np.uint64(arg.ptr)
        raise TypeError(f"Unsupported type {type(arg)}")
