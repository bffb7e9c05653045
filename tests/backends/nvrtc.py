"""NVIDIA's run-time compiler without a GPU or a driver: by ctypes, and what its assembler says of each kernel."""

from __future__ import annotations

import ctypes
import ctypes.util
import dataclasses
import functools
import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path


class CompileError(Exception):
    """The compiler's log."""


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a kernel takes of each thread: registers, and bytes for what did not fit into them."""

    registers: int
    spill_stores: int
    spill_loads: int
    stack: int


@functools.cache
def library() -> ctypes.CDLL | None:
    """NVRTC, from `pip install nvidia-cuda-nvrtc` or where the system's libraries lie; None where there is none."""
    for path in _candidates():
        try:
            for builtins in Path(path).parent.glob("libnvrtc-builtins.so*"):
                ctypes.CDLL(str(builtins))  # which NVRTC opens by its bare name
            return ctypes.CDLL(path)
        except OSError:
            continue
    return None


def _candidates() -> Iterator[str]:
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        yield from sorted(str(path) for path in Path(folder).glob("*/lib/libnvrtc.so*"))
    if found := ctypes.util.find_library("nvrtc"):
        yield found
    yield from ("libnvrtc.so.13", "libnvrtc.so.12")


def compile(source: str, architecture: str, options: Sequence[str] = ()) -> dict[str, Usage]:
    """Compile a source down to machine code.

    Args:
        source: with everything that it includes in its place.
        architecture: such as "sm_90a".
        options: beside the architecture.

    Returns:
        the kernels by name, with what they take.

    Raises:
        CompileError: it does not compile.
    """
    nvrtc, program = library(), ctypes.c_void_p()
    options = [f"-arch={architecture}", "--std=c++17", "--ptxas-options=-v", *options]
    encoded = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None))
    try:
        failed = nvrtc.nvrtcCompileProgram(program, len(options), encoded)
        size = ctypes.c_size_t()
        _check(nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
        log = ctypes.create_string_buffer(size.value)
        _check(nvrtc.nvrtcGetProgramLog(program, log))
        text = log.value.decode()
        if failed:
            raise CompileError(text)
        _check(nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)))
        assert size.value > 0, "no machine code"
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return usage(text)


_ENTRY = re.compile(
    r"Compiling entry function '(\w+)'.*?"
    r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?"
    r"Used (\d+) registers",
    re.DOTALL,
)


def usage(log: str) -> dict[str, Usage]:
    """What the assembler's log says of each kernel."""
    return {
        name: Usage(int(registers), *map(int, (stores, loads, stack)))
        for name, stack, stores, loads, registers in _ENTRY.findall(log)
    }


def _check(failed: int) -> None:
    if failed:
        raise OSError(f"NVRTC returned error {failed}")
