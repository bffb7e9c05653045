"""What the last bits of a result depend on besides the settings: a checkpoint keeps it, a resumed run compares.

float32 sums differ in their last bits between numbers of threads, matrix kernels and library versions. On equal
fingerprints a resumed run equals an uninterrupted one bit for bit. Read next: `loop.py`.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping

import numpy as np

from .. import backends
from ..backends.numpy import blas
from .config import ON_DEVICES


def fingerprint(backend: str, threads: int, precision: str = "float32", devices: int = 1) -> dict[str, str]:
    """This machine and its libraries, in words."""
    if backend != "numpy":
        device = {name: str(value) for name, value in backends.get(backend).description().items()}
        return {"backend": backend, "precision": precision, "devices": str(devices)} | device
    libraries = [f"{found['library']} {found['version']} {found['kernels']}" for found in blas.describe()]
    return {
        "machine": platform.machine(),
        "numpy": np.__version__,
        "BLAS": ", ".join(libraries) or "unknown",
        "backend": backend,
        "threads": str(threads),
        "precision": "float32" if precision in ON_DEVICES else precision,
    }


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What has changed between two fingerprints, as a sentence for a user; empty where nothing has."""
    both = [name for name in before if name in now]  # a device and a processor have little in common
    changed = [f"{name} was {before[name]} and is {now[name]}" for name in both if before[name] != now[name]]
    return f"{'; '.join(changed)}: the last bits of the results may differ" if changed else ""
