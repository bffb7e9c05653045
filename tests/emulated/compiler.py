"""Compiles the kernels of a CUDA source for the CPU, and launches them: what CuPy's `RawModule` does on a GPU.

    module = compile(text, ("-DREAL=float",))
    module.function("scale")(grid, block, (x, np.int32(x.size), np.float32(2)), shared=0)

Whatever a launch on a GPU would refuse, or answer with wrong numbers or an endless wait, raises an `EmulationError`.

Read before: `backends/cupy/launch.py`. Read next: `cuda.hpp`, the language.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import math
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

COMPILER = os.environ.get("CXX", "g++")
ORDERS = ("forward", "reverse", "shuffled")  # in which the threads of a block, and the blocks, take turns
MAX_THREADS, MAX_SHARED, STATIC_SHARED = 1024, 227 << 10, 48 << 10
MAX_GRID = (2**31 - 1, 65535, 65535)

_HEADERS = Path(__file__).parent
_FLAGS = ("-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-fno-gnu-unique", "-fno-strict-aliasing", "-w")
_BOUNDS = re.compile(r"__launch_bounds__\s*(\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))")
_KERNEL = re.compile(rf'extern\s+"C"((?:\s*(?:__global__|void|{_BOUNDS.pattern}))+)\s+(\w+)\s*\(')
_DYNAMIC = re.compile(r"extern\s+__shared__\s+([^;]*?)(\w+)\s*\[\s*\]\s*;")
_ALIGNMENT = re.compile(r"(?:alignas|__align__)\s*\([^()]*\)")
_IGNORED = re.compile(r"--?std=.*|-arch=.*|--gpu-architecture=.*|--?use_fast_math|-lineinfo|--ptxas-options=.*")

_order = ("forward", 0)


class EmulationError(RuntimeError):
    """A kernel did what a GPU would not do, or not in the same way every time."""


@contextmanager
def order(name: str, seed: int = 0) -> Iterator[None]:
    """Run kernels with their threads and blocks in this order: one of `ORDERS`, and the seed for "shuffled"."""
    global _order
    before, _order = _order, (name, seed)
    ORDERS.index(name)
    try:
        yield
    finally:
        _order = before


class Function:
    """A kernel, ready to be launched."""

    def __init__(self, library: ctypes.PyDLL, name: str) -> None:
        self.name = name
        self._launch = library[f"emulated_launch_{name}"]
        parameters = library[f"emulated_parameters_{name}"]
        parameters.restype = ctypes.POINTER(ctypes.c_int)
        codes = parameters()
        self.max_threads, self.parameters = codes[0], []  # parameters: kind and bytes of each, as "i4"
        while code := codes[len(self.parameters) + 1]:
            self.parameters.append(f"{chr(code & 255)}{code >> 8}")

    def __call__(self, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any], shared: int = 0) -> None:
        """Run it to its end.

        Args:
            grid: blocks, up to three numbers.
            block: threads of each.
            arguments: arrays (NumPy's, or whatever has `.data.ptr`) and None for pointers, NumPy scalars for others.
            shared: bytes of dynamic shared memory.
        """
        grid, block = _three(grid), _three(block)
        if math.prod(block) > min(MAX_THREADS, self.max_threads) or block[2] > 64 or min(block) < 1:
            raise EmulationError(f"{self.name}: a block of {block} threads; it may have {self.max_threads}")
        if min(grid) < 1 or any(size > limit for size, limit in zip(grid, MAX_GRID)):
            raise EmulationError(f"{self.name}: a grid of {grid} blocks")
        if not 0 <= shared <= MAX_SHARED:
            raise EmulationError(f"{self.name}: {shared} bytes of shared memory; there are {MAX_SHARED}")
        if len(arguments) != len(self.parameters):
            raise EmulationError(f"{self.name}: {len(arguments)} arguments for {len(self.parameters)} parameters")
        values = [self._value(n, *pair) for n, pair in enumerate(zip(arguments, self.parameters))]
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        message = ctypes.create_string_buffer(1000)
        name, seed = _order
        failed = self._launch(
            (ctypes.c_uint * 3)(*grid),
            (ctypes.c_uint * 3)(*block),
            pointers,
            ctypes.c_size_t(shared),
            ORDERS.index(name),
            ctypes.c_uint64(seed),
            message,
            ctypes.c_size_t(len(message)),
        )
        if failed:
            raise EmulationError(message.value.decode())

    def _value(self, number: int, argument: Any, parameter: str) -> np.ndarray:
        """An array of the bytes that the parameter takes."""
        if argument is None:
            argument = np.uint64(0)
        elif isinstance(argument, np.ndarray) and not hasattr(argument.data, "ptr"):
            argument = np.uint64(argument.ctypes.data)
        elif hasattr(getattr(argument, "data", None), "ptr"):
            argument = np.uint64(argument.data.ptr)
        value = np.asarray(argument)
        kind = {"u": "i"}.get(value.dtype.kind, value.dtype.kind)
        given = "p8" if parameter == "p8" and value.dtype == np.uint64 else f"{kind}{value.dtype.itemsize}"
        if given != parameter or value.ndim:
            raise EmulationError(f"{self.name}: argument {number} is {given} where the parameter is {parameter}")
        return value


def _three(sizes: int | Sequence[int]) -> tuple[int, int, int]:
    sizes = sizes if isinstance(sizes, Sequence) else (sizes,)
    return (*map(int, sizes), 1, 1)[:3]


class Module:
    """The kernels of one source."""

    def __init__(self, library: Path, kernels: Sequence[str]) -> None:
        self._library = ctypes.PyDLL(str(library))  # holds the interpreter's lock: one launch at a time
        self.kernels = tuple(kernels)
        self.function = functools.cache(self._function)

    def _function(self, name: str) -> Function:
        if name not in self.kernels:
            raise EmulationError(f"there is no kernel {name}, only {', '.join(self.kernels)}")
        return Function(self._library, name)


@functools.cache
def compile(source: str, options: tuple[str, ...] = ()) -> Module:
    """Compile a source, everything that it includes in its place; or load it, if that was done before.

    Args:
        source: with kernels that are declared `extern "C" __global__ void`.
        options: as NVRTC takes them: definitions (-DNAME=VALUE); those for the GPU alone are passed over.
    """
    text, kernels = translate(source, options)
    parts = (text, *_FLAGS, *((_HEADERS / name).read_text() for name in ("cuda.hpp", "intrinsics.hpp")))
    name = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    folder = Path(tempfile.gettempdir()) / f"tinyformer-emulated-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{name}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            file = Path(work, "source.cpp")
            file.write_text(text)
            command = [COMPILER, *_FLAGS, f"-I{_HEADERS}", "-o", f"{work}/out.so", str(file)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise EmulationError(f"{COMPILER} found errors:\n{done.stderr[:4000]}")
            Path(work, "out.so").rename(library)
    return Module(library, kernels)


def translate(source: str, options: Sequence[str] = ()) -> tuple[str, list[str]]:
    """A source as C++, and the names of its kernels."""
    defines = []
    for option in options:
        if option.startswith("-D"):
            defines.append("#define " + option[2:].strip().replace("=", " ", 1))
        elif not _IGNORED.fullmatch(option):
            raise EmulationError(f"the option {option} means nothing to the emulator")
    kernels = {found[3]: found[2] or "(1024)" for found in _KERNEL.finditer(source) if "__global__" in found[1]}
    body = _DYNAMIC.sub(_dynamic, source)
    # Without a name, every function is the file's own: libraries that are loaded side by side share nothing.
    lines = ['#include "cuda.hpp"', *defines, "namespace {", '#line 1 "kernels.cu"', body, "}"]
    lines += [f"EMULATED_KERNEL({name}, {bounds})" for name, bounds in kernels.items()]
    return "\n".join(lines) + "\n", list(kernels)


def _dynamic(found: re.Match) -> str:
    """`extern __shared__ T name[];` as a pointer."""
    kind = _ALIGNMENT.sub("", found[1]).strip()
    return f"{kind}* const {found[2]} = ({kind}*)emulated::dynamic_shared;"
