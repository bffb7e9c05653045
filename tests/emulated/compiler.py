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
import itertools
import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

COMPILER = "g++"
ORDERS = ("forward", "reverse", "shuffled")  # in which the threads of a block, and the blocks, take turns
MAX_THREADS, MAX_SHARED = 1024, 227 << 10
MAX_GRID = (2**31 - 1, 65535, 65535)

_HEADERS = Path(__file__).parent
_FLAGS = ("-std=c++17", "-g1", "-fPIC", "-fno-gnu-unique", "-fno-strict-aliasing", "-ffp-contract=off", "-w")
_CHECKS = ("-fsanitize=thread,alignment,bounds-strict,shift-exponent,integer-divide-by-zero",)
_BOUNDS = re.compile(r"__launch_bounds__\s*(\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))")
_KERNEL = re.compile(rf'extern\s+"C"((?:\s*(?:__global__|void|{_BOUNDS.pattern}))+)\s+(\w+)\s*\(')
_DYNAMIC = re.compile(r"extern\s+__shared__\s+([^;]*?)(\w+)\s*\[\s*\]\s*;")
_ALIGNMENT = re.compile(r"(?:alignas|__align__)\s*\([^()]*\)")
_IGNORED = re.compile(r"--?std=.*|-arch=.*|--gpu-architecture=.*|--?use_fast_math|-lineinfo|--ptxas-options=.*")

_chosen: tuple[str, int] | None = None  # an order and its seed
_launches = itertools.count()


class EmulationError(RuntimeError):
    """A kernel did what a GPU would not do, or not in the same way every time."""


@contextmanager
def order(name: str, seed: int = 0) -> Iterator[None]:
    """Run kernels with their threads and blocks in this order: one of `ORDERS`, and the seed for "shuffled".

    Elsewhere each launch takes another order than the one before, so that a test which repeats a step and compares its
    bits shows what depends on the order.
    """
    global _chosen
    if name not in ORDERS:
        raise ValueError(f"the order {name} is none of {', '.join(ORDERS)}")
    before, _chosen = _chosen, (name, seed)
    try:
        yield
    finally:
        _chosen = before


class Memory(NamedTuple):
    """An address that a kernel is given, and the bytes that it may touch through it."""

    address: int
    begin: int
    end: int

    @classmethod
    def of(cls, array: np.ndarray) -> Memory:
        return cls(array.__array_interface__["data"][0], *np.lib.array_utils.byte_bounds(array))


class _Launch(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("order", ctypes.c_int),
        ("seed", ctypes.c_uint64),
        ("shared", ctypes.c_uint64),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("checked", ctypes.c_uint64),
        ("extents", ctypes.POINTER(ctypes.c_uint64)),
        ("message", ctypes.c_char_p),
        ("message_size", ctypes.c_uint64),
        ("where", ctypes.c_uint64),
    )


class Function:
    """A kernel, ready to be launched."""

    def __init__(self, library: ctypes.PyDLL, name: str, source: str) -> None:
        self.name, self._library, self._source = name, library, source
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
            arguments: for pointers NumPy's arrays, `Memory`, None, or an address as uint64, of which nothing is known,
                so that no address of this launch is checked; NumPy scalars for others.
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
        values, extents = [], []
        for number, (argument, parameter) in enumerate(zip(arguments, self.parameters)):
            value, extent = self._value(number, argument, parameter)
            values.append(value)
            extents.append(extent)
        known = all(extent is not None for extent in extents)
        message = ctypes.create_string_buffer(1000)
        number = next(_launches)
        name, seed = _chosen or (ORDERS[number % len(ORDERS)], number)
        launch = _Launch(
            grid,
            block,
            ORDERS.index(name),
            seed,
            shared,
            (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values)),
            len(extents) if known else 0,
            (ctypes.c_uint64 * (2 * len(extents)))(*(end for pair in extents for end in pair) if known else ()),
            ctypes.cast(message, ctypes.c_char_p),
            len(message),
        )
        if self._launch(ctypes.byref(launch)):
            raise EmulationError(message.value.decode() + self._line(launch.where))

    def _value(self, number: int, argument: Any, parameter: str) -> tuple[np.ndarray, tuple[int, int] | None]:
        """An array of the bytes that the parameter takes, and the memory that it gives access to, if that is known."""
        extent = (0, 0)
        if argument is None:
            argument = np.uint64(0)
        elif isinstance(argument, (np.ndarray, Memory)) and parameter == "p8":
            memory = argument if isinstance(argument, Memory) else Memory.of(argument)
            extent, argument = memory[1:], np.uint64(memory.address)
        value = np.asarray(argument)
        kind = {"u": "i"}.get(value.dtype.kind, value.dtype.kind)
        given = f"{kind}{value.dtype.itemsize}"
        if parameter == "p8" and value.dtype == np.uint64:
            given, extent = parameter, extent if extent[0] or not value else None
        if given != parameter or value.ndim:
            raise EmulationError(f"{self.name}: argument {number} is {given} where the parameter is {parameter}")
        return value, extent

    def _line(self, address: int) -> str:
        """Where in the source the instruction before an address is."""
        if not address or not shutil.which("addr2line"):
            return ""
        command = ("addr2line", "-i", "-e", self._library._name, hex(address - 1))
        found = subprocess.run(command, capture_output=True, text=True).stdout
        source = dict(enumerate(self._source.splitlines(), 1))
        numbers = [int(number) for number in re.findall(r"kernels\.cu:(\d+)", found)]
        return "".join(f"\n  {number}: {source[number].strip()}" for number in numbers if number in source)


def _three(sizes: int | Sequence[int]) -> tuple[int, int, int]:
    sizes = sizes if isinstance(sizes, Sequence) else (sizes,)
    return (*map(int, sizes), 1, 1)[:3]


class Module:
    """The kernels of one source."""

    def __init__(self, library: Path, kernels: Sequence[str], source: str) -> None:
        self._library = ctypes.PyDLL(str(library))  # holds the interpreter's lock: one launch at a time
        self.kernels, self._source = tuple(kernels), source
        self.function = functools.cache(self._function)

    def _function(self, name: str) -> Function:
        if name not in self.kernels:
            raise EmulationError(f"there is no kernel {name}, only {', '.join(self.kernels)}")
        return Function(self._library, name, self._source)


@functools.cache
def compile(source: str, options: tuple[str, ...] = ()) -> Module:
    """Compile a source, everything that it includes in its place; or load it, if that was done before.

    Args:
        source: with kernels that are declared `extern "C" __global__ void`.
        options: as NVRTC takes them: definitions (-DNAME=VALUE); those for the GPU alone are passed over.
    """
    text, kernels = translate(source, options)
    return Module(_build({"kernels.cu": text}, ("-O1", *_CHECKS), _machine()), kernels, source)


@functools.cache
def _machine() -> Path:
    """The library that all kernels share: the scheduler, and the checks that their accesses call."""
    return _build({name: (_HEADERS / name).read_text() for name in ("runtime.cpp", "checks.cpp")}, ("-O2",))


def _build(sources: dict[str, str], flags: tuple[str, ...], *libraries: Path) -> Path:
    """A shared library, compiled unless that was done before."""
    headers = {path.name: path.read_text() for path in sorted(_HEADERS.glob("*.hpp"))}
    key = repr((sources, headers, COMPILER, _FLAGS, flags, libraries))
    folder = Path(tempfile.gettempdir()) / f"tinyformer-emulated-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            for name, text in sources.items():
                Path(work, name).write_text(text)
            # Linked without the sanitizers' flags, for what they call is in the machine.
            _run(COMPILER, *_FLAGS, *flags, f"-I{_HEADERS}", "-c", "-xc++", *sources, folder=work)
            objects = [str(Path(name).with_suffix(".o")) for name in sources]
            _run(COMPILER, "-shared", "-o", "out.so", *objects, *map(str, libraries), folder=work)
            Path(work, "out.so").rename(library)
    return library


def _run(*command: str, folder: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise EmulationError(f"{command[0]} found errors:\n{done.stderr[:4000]}")


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
