"""What the machine offers: versions, backends, the BLAS library and its kernels, threads, memory."""

from __future__ import annotations

import importlib.metadata
import os
import platform

from .. import backends
from ..backends.numpy import blas

_LIBRARIES = ("numpy", "einops", "click", "regex", "rich", "safetensors", "threadpoolctl")
_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def describe_machine() -> dict[str, dict[str, str]]:
    """Facts about this machine in sections, each a short text by name."""
    backends.get("numpy")
    return {
        "versions": _versions(),
        "backends": {name: reason or "works" for name, reason in backends.available().items()},
        "BLAS": _blas(),
        "machine": _machine(),
    }


def _versions() -> dict[str, str]:
    versions = {"tinyformer": _version("tinyformer"), "python": platform.python_version()}
    return versions | {name: _version(name) for name in _LIBRARIES}


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _blas() -> dict[str, str]:
    found = {}
    for i, pool in enumerate(blas.describe()):
        mark = f" {i + 1}" if i else ""
        found[f"library{mark}"] = f"{pool['library']} {pool['version']}"
        found[f"kernels{mark}"] = str(pool["kernels"])
        found[f"threads{mark}"] = str(pool["threads"])
    return found or {"library": "none that can be asked; NumPy may use one of its own"}


def _machine() -> dict[str, str]:
    facts = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": f"{os.cpu_count()}, of which {_usable_cores()} may be used",
        "memory": f"{memory() / 2**30:.1f} GiB",
    }
    return facts | {name: os.environ[name] for name in _VARIABLES if name in os.environ}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or "unknown"


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> int:
    """Bytes of main memory; 0 where the system does not tell."""
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0
