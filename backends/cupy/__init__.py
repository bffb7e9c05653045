"""The CuPy backend: the same arrays and kernels on an NVIDIA GPU.

Importing this package imports no CuPy: `backend.py` does, and is loaded where somebody asks for the backend.
"""

from __future__ import annotations

import importlib.util

_INSTALL = "pip install 'tinyformer[gpu]'"
_TOOLKIT = 'pip install "cupy-cuda13x[ctk]"'


def why_not() -> str:
    """The reason why this backend cannot run here, with what to do about it; empty where it can."""
    for package, name in (("cupy", "CuPy"), ("ml_dtypes", "ml_dtypes")):
        if importlib.util.find_spec(package) is None:
            return f"{name} is not installed: {_INSTALL}"
    try:
        import cupy
    except Exception as error:  # of whatever kind: a library of the toolkit may be missing, or be another one's
        return f"importing CuPy fails with {_line(error)}; install it anew: pip uninstall cupy, then {_INSTALL}"
    try:
        devices = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        return _no_device(error)
    if not devices:
        return "no NVIDIA GPU is visible; nvidia-smi lists them, unless CUDA_VISIBLE_DEVICES hides them"
    try:
        cupy.cuda.nvrtc.getVersion()
    except Exception as error:
        return f"the compiler NVRTC cannot be loaded ({_line(error)}): {_TOOLKIT}"
    return ""


def _no_device(error: Exception) -> str:
    """What an error of CUDA says about the machine."""
    if "InsufficientDriver" in str(error):
        return "there is no NVIDIA driver, or one too old for CUDA 13: install 580 or newer, and see nvidia-smi"
    if "NoDevice" in str(error):
        return "no NVIDIA GPU is visible; nvidia-smi lists them, unless CUDA_VISIBLE_DEVICES hides them"
    return f"CUDA does not start ({_line(error)}); see whether nvidia-smi runs"


def _line(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
