"""The CuPy backend: the same arrays and kernels on an NVIDIA GPU.

Importing this package imports no CuPy: `backend.py` does, and is loaded where somebody asks for the backend.
"""

from __future__ import annotations

import functools
import importlib.util

_INSTALL = "pip install 'tinyformer[gpu]'"


@functools.cache
def why_not() -> str:
    """The reason why this backend cannot run here, with what to do about it; empty where it can."""
    if importlib.util.find_spec("cupy") is None:
        return f"CuPy is not installed: {_INSTALL}"
    import cupy

    return "" if cupy.cuda.is_available() else "there is no NVIDIA GPU, or no driver for it"
