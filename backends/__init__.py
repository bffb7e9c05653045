"""Array backends: which library an array belongs to, and loading one by name only when it is wanted.

There is no current backend. An array knows the library it came from (`of`), and a model is made on the one that its
creator names (`get`). This package imports nothing of ours, and no array library until it must; but importing it
sets the machine up for NumPy, for which it would be too late afterwards.

Read next: `contract.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import cupy
from .contract import Backend, Generator, Kernel, Undrawn
from .numpy import choose_kernels

__all__ = [
    "NAMES",
    "Backend",
    "BackendUnavailable",
    "Generator",
    "Kernel",
    "Undrawn",
    "as_array",
    "available",
    "common",
    "get",
    "of",
]

NAMES = ("numpy", "cupy")

choose_kernels()  # too late once NumPy is imported

_by_name: dict[str, Backend] = {}
_by_type: dict[type, Backend] = {}


class BackendUnavailable(ImportError):
    """The named backend is unknown, or cannot run here; the message says why."""


def get(name: str = "auto") -> Backend:
    """The backend of that name, loaded at its first use.

    Args:
        name: "numpy", "cupy", or "auto" for the fastest that runs here.

    Raises:
        BackendUnavailable: the name is unknown, or its library or device is missing.
    """
    if name == "auto":
        name = "cupy" if not cupy.why_not() else "numpy"
    if name not in _by_name:
        if name == "numpy":
            from .numpy.backend import NumpyBackend

            backend = NumpyBackend()
        elif name == "cupy":
            if reason := cupy.why_not():
                raise BackendUnavailable(f"the cupy backend cannot run: {reason}; or use --backend numpy")
            from .cupy.backend import CupyBackend

            backend = CupyBackend()
        else:
            raise BackendUnavailable(f"unknown backend {name!r}; known are auto, {', '.join(NAMES)}")
        _by_type[backend.ndarray] = _by_name[name] = backend
    return _by_name[name]


def of(array: Any) -> Backend:
    """The backend that an array belongs to.

    Any library with `__array_namespace__` works; those we have no backend for run the composed functions.

    Raises:
        TypeError: it is not an array of a library that follows the array API.
    """
    backend = _by_type.get(type(array))
    if backend is None:
        backend = _adopt(array)
    return backend


def _adopt(array: Any) -> Backend:
    numpy = get("numpy")
    if isinstance(array, numpy.ndarray | numpy.generic):  # NumPy's reductions return scalars of their own types
        backend = numpy
    elif hasattr(array, "__array_namespace__"):
        backend = Backend(array.__array_namespace__())
    else:
        raise TypeError(f"a {type(array).__name__} is not an array; make one with tinyformer.Tensor(...)")
    _by_type[type(array)] = backend
    return backend


def common(arrays: Iterable[Any]) -> Backend:
    """The one backend that all these arrays belong to; a TypeError where there are several, or no array."""
    found = {_by_type.get(type(array)) or _adopt(array) for array in arrays}
    if len(found) != 1:
        names = " and ".join(sorted(backend.name for backend in found)) or "none"
        raise TypeError(f"the inputs must be tensors of one backend, found {names}")
    return found.pop()


def as_array(data: Any) -> Any:
    """An array as it is; a number or a nested list as a NumPy array, real numbers in float32.

    Raises:
        TypeError: it holds something else than numbers.
    """
    if hasattr(data, "__array_namespace__") or type(data) in _by_type:
        return data
    numpy = get("numpy")
    array = numpy.asarray(data)
    if not numpy.isdtype(array.dtype, ("bool", "numeric")):
        raise TypeError(f"a tensor is made of an array, or of numbers in lists, and this is a {type(data).__name__}")
    untyped = not isinstance(data, numpy.generic) and numpy.is_floating(array)
    return array.astype(numpy.float32) if untyped else array


def available() -> dict[str, str]:
    """The known backends, each with the reason why it cannot run here; an empty reason where it can."""
    return {"numpy": "", "cupy": cupy.why_not()}
