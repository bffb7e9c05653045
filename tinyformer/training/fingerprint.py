"""What the last bits of a result depend on besides the settings: a checkpoint keeps it, a resumed run compares.

float32 sums differ in their last bits between numbers of threads, matrix kernels and library versions. On equal
fingerprints a resumed run equals an uninterrupted one bit for bit. Read next: `loop.py`.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping

import numpy as np

from ..backends.numpy import blas


def fingerprint(backend: str, threads: int) -> dict[str, str]:
    """This machine and its libraries, in words."""
    libraries = [f"{found['library']} {found['version']} {found['kernels']}" for found in blas.describe()]
    return {
        "machine": platform.machine(),
        "numpy": np.__version__,
        "BLAS": ", ".join(libraries) or "unknown",
        "backend": backend,
        "threads": str(threads),
    }


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What has changed between two fingerprints, as a sentence for a user; empty where nothing has."""
    changed = [f"{name} was {before[name]} and is {now.get(name)}" for name in before if before[name] != now.get(name)]
    return f"{'; '.join(changed)}: the last bits of the results may differ" if changed else ""
