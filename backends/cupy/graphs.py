"""Work that is recorded once as a CUDA graph, and replayed with a single call.

A step of a small model is hundreds of kernels that each take microseconds, and the host takes longer to ask for them
than the device to run them. A graph has asked already. It repeats the very same kernels on the very same addresses: so
inputs are copied to where they lay when it was recorded, and the memory that it works in stays in a pool of its own.

While a stream is captured, nothing runs. So a function that turns out not to be recordable, as it waits for the device
or calls a library that cannot be captured, has changed nothing, and simply runs.

Read before: `launch.py`. Read next: `tinyformer/training/device_step.py`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import cupy
import numpy as np

from . import device

MOST = 8  # graphs that are kept, each for arrays of other shapes
_PLACE = 256  # bytes that an input's place is a multiple of


class Recorded:
    """A function of arrays on the host that runs on the device; see `Backend.recorded`.

    The first call with arrays of some shapes runs it, which is also how kernels get compiled and libraries ready; the
    second records it and launches the graph; later ones only launch. All of it happens on one stream, which waits for
    the caller's, as the caller's waits for it.

    Args:
        function: `function(arrays) -> arrays`, both dictionaries.
        record: False runs it in every call.
        warn: told, in a sentence, where it cannot be recorded.
    """

    def __init__(
        self, function: Callable[..., Any], *, record: bool = True, warn: Callable[[str], None] | None = None
    ) -> None:
        self._function, self._record, self._warn = function, record, warn
        self._calls: dict[Any, _Call] = {}  # by the shapes and types of the inputs, the latest used at the end
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._before, self._after = (cupy.cuda.Event(disable_timing=True) for _ in range(2))

    def __call__(self, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        signature = tuple((name, array.shape, array.dtype.str) for name, array in arrays.items())
        caller = cupy.cuda.get_current_stream()
        self._before.record(caller)
        with self._stream:
            self._stream.wait_event(self._before)
            known = self._calls.pop(signature, None)
            if known is None:
                self._make_room()
            call = known or _Call(arrays)
            self._calls[signature] = call
            if len(self._calls) > MOST:
                del self._calls[next(iter(self._calls))]
            call.fill(arrays, self._stream)
            if known and self._record and call.graph is None:
                self._capture(call)
            if call.graph is None:
                outputs = self._function(call.inputs)
            else:
                call.graph.launch(self._stream)
                outputs = call.outputs
            self._after.record(self._stream)
        caller.wait_event(self._after)
        return outputs

    def _capture(self, call: _Call) -> None:
        """Record what the function does with these inputs, if that is possible."""
        cupy.get_default_memory_pool().free_all_blocks(self._stream)  # what the first call worked in
        # Only the capture takes memory from the graph's pool. What the function makes in another call and keeps, such
        # as a table, so never lies where the graph writes.
        refused: list[int] = []
        pool = cupy.cuda.MemoryPool(lambda size: self._allocate(size, refused))
        self._stream.begin_capture()
        try:
            with cupy.cuda.using_allocator(pool.malloc):
                outputs = self._function(call.inputs)
            graph = self._stream.end_capture()
            if not refused:
                call.graph, call.outputs, call.pool = graph, outputs, pool
        except BaseException as error:
            with contextlib.suppress(Exception):  # that the capture is lost is known
                self._stream.end_capture()
            if not isinstance(error, Exception):
                raise
            self._record = False  # an error that has nothing to do with recording comes again when it runs
            if self._warn is not None:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                self._warn(f"a step cannot be recorded, and takes more of the host's time: {reason}")

    def _make_room(self) -> None:
        """Give up the graphs where so little memory is left that a step of other shapes may not fit beside them."""
        needed = max((call.pool.total_bytes() for call in self._calls.values() if call.pool), default=0)
        if needed and device.memory()[0] < needed:
            self._calls.clear()

    def _allocate(self, size: int, refused: list[int]) -> Any:
        """Memory for a graph that is being recorded. Where there is none left, other graphs give theirs back.

        The pool then frees what it has and tries once more. That may be memory which kernels recorded before work in:
        so a size that was refused is noted, and that graph is not used.
        """
        try:
            return cupy.cuda.MemoryPointer(cupy.cuda.Memory(size), 0)
        except cupy.cuda.runtime.CUDARuntimeError:
            refused.append(size)
            self._calls.clear()
            cupy.get_default_memory_pool().free_all_blocks()
            raise  # and the pool tries once more


class _Call:
    """Inputs of certain shapes in their places on the device, and the graph that reads them there.

    All of them lie in one block, and so take one transfer from memory of the host that the device reads by itself.
    """

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.graph = self.outputs = self.pool = None
        starts = [0]
        for array in arrays.values():
            starts.append(starts[-1] + -(-array.nbytes // _PLACE) * _PLACE)
        self._size = max(starts[-1], 1)
        self._pinned = cupy.cuda.alloc_pinned_memory(self._size)
        self._block = cupy.empty(self._size, np.uint8)
        self._copied = cupy.cuda.Event(disable_timing=True)
        host = np.frombuffer(self._pinned, np.uint8, self._size)
        self.inputs, self._staging = {}, {}
        for (name, array), start in zip(arrays.items(), starts):
            place = slice(start, start + math.prod(array.shape) * array.dtype.itemsize)
            self._staging[name] = host[place].view(array.dtype).reshape(array.shape)
            self.inputs[name] = self._block[place].view(array.dtype).reshape(array.shape)

    def fill(self, arrays: dict[str, np.ndarray], stream: Any) -> None:
        """Enqueue the transfer of new inputs; waits only for an earlier one."""
        if not self._copied.done:
            self._copied.synchronize()
        for name, array in arrays.items():
            self._staging[name][...] = array
        self._block.data.copy_from_host_async(self._pinned.ptr, self._size, stream)
        self._copied.record(stream)
