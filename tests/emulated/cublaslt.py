"""The stand-in for cuBLASLt, built and put in the library's place.

Read before: `cublaslt.cpp`.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tinyformer.backends.cupy import cublaslt as binding

_SOURCE = Path(__file__).with_name("cublaslt.cpp")
_COUNTS = ("descriptors", "layouts", "heuristics", "products", "mistakes")
_RECORDER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint64)


@functools.cache
def path() -> str:
    """Where the built library is."""
    compiler = os.environ.get("CXX", "g++")
    name = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:32]
    folder = Path(tempfile.gettempdir()) / f"tinyformer-emulated-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"cublaslt-{name}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            command = [compiler, "-std=c++17", "-O2", "-fPIC", "-shared", "-fno-gnu-unique", "-o", f"{work}/out.so"]
            subprocess.run([*command, str(_SOURCE)], check=True)
            Path(work, "out.so").rename(library)
    return str(library)


class Emulation:
    """What the stand-in asks of a device, and tests of it.

    Args:
        state: of the emulated devices: which work is recorded.
    """

    def __init__(self, state: Any) -> None:
        self._library = ctypes.CDLL(path())
        self._library.emulated_count.restype = ctypes.c_uint64
        replay = self._library.emulated_replay
        replay.argtypes = (ctypes.c_uint64,)

        def record(ticket: int) -> int:
            if state.capturing():
                state.enqueue(lambda: replay(ticket))
                return 1
            return 0

        self._record = _RECORDER(record)  # lives as long as the library may call it
        self._library.emulated_recorder(self._record)

    def counts(self) -> dict[str, int]:
        """How many of each were asked for so far, and how many asked for the impossible."""
        return {name: self._library.emulated_count(i) for i, name in enumerate(_COUNTS)}


@functools.cache
def emulation() -> Emulation:
    """The stand-in, in touch with the emulated devices; tests that ask it are skipped where there are real ones."""
    state = getattr(sys.modules["cupy"], "emulated", None)
    if state is None:
        pytest.skip("asks the stand-in for cuBLASLt, and here is the library")
    return Emulation(state)


@contextlib.contextmanager
def refusing(epilogues: int) -> Iterator[None]:
    """Inside, the library has no algorithm with one of these epilogues, given by their bits: the real one, too."""
    from tinyformer.backends.cupy import products

    plan = binding.Library.plan

    def refuse(library, handle, product, workspace):
        return None if product.epilogue & epilogues else plan(library, handle, product, workspace)

    products._plans.clear()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(binding.Library, "plan", refuse)
            yield
    finally:
        products._plans.clear()


def install() -> None:
    """Put the stand-in, which is built at its first use, in the place of the library."""
    binding.find = _find


def _find() -> binding.Library:
    emulation()
    return binding.Library(path())
