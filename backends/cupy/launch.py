"""CUDA sources: each compiled once per process and type of numbers, at its first use, and launched with few words.

A `.cu` file holds kernels that are declared `extern "C"` and written for numbers of type `REAL`, which is `float` or
`bfloat16` (`common.cuh`). What a file includes is put in its place (`sources.py`), so that CuPy's cache on disk, which
looks at the source alone, never takes an old version.

Read before: `backend.py`. Read next: `common.cuh`, then `norms.py` with `norms.cu`.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from .sources import REALS, text

_NOTHING = np.uint64(0)  # a null pointer, for an array that is absent


class Source:
    """The kernels of one file.

    Args:
        name: of the file beside this one, such as "norms.cu".
        options: of the compiler, beside the type of numbers.
    """

    def __init__(self, name: str, options: tuple[str, ...] = ()) -> None:
        self._name, self._options = name, options
        self._modules: dict[Any, Any] = {}
        self._functions: dict[Any, Any] = {}
        self._shared: dict[Any, int] = {}  # bytes that a kernel was given leave to have

    def launch(
        self,
        kernel: str,
        dtype: Any,
        grid: int | tuple[int, ...],
        block: int | tuple[int, ...],
        arguments: tuple[Any, ...],
        *,
        shared: int = 0,
        **defines: int,
    ) -> None:
        """Enqueue a kernel on the current stream.

        Args:
            kernel: its name.
            dtype: what `REAL` is: float32 or bfloat16.
            grid: blocks; nothing is launched where there are none.
            block: threads of each.
            arguments: arrays that are contiguous, or whose strides the kernel is told; None for an absent one; and
                NumPy scalars of exactly the types of the parameters.
            shared: bytes of dynamic shared memory.
            defines: constants of the compilation, by name; each set of them is a version of its own.
        """
        grid = grid if isinstance(grid, tuple) else (grid,)
        if 0 in grid:
            return
        version = (dtype, cupy.cuda.runtime.getDevice(), *defines.items())
        function = self._functions.get((kernel, version))
        if function is None:
            function = self._functions[kernel, version] = self._module(version, defines).get_function(kernel)
        if shared > self._shared.get((kernel, version), _DEFAULT_SHARED):
            function.max_dynamic_shared_size_bytes = self._shared[kernel, version] = shared
        block = block if isinstance(block, tuple) else (block,)
        function(grid, block, tuple(_NOTHING if x is None else x for x in arguments), shared_mem=shared)

    def _module(self, version: tuple[Any, ...], defines: dict[str, int]) -> Any:
        if version not in self._modules:
            options = (f"-DREAL={REALS[np.dtype(version[0]).name]}", *(f"-D{n}={v}" for n, v in defines.items()))
            options = ("--std=c++17", *options, *self._options)
            self._modules[version] = cupy.RawModule(code=text(self._name), options=options)
        return self._modules[version]


_DEFAULT_SHARED = 32 << 10  # bytes that a kernel may have without asking: 48 k, of which its static ones are a part
