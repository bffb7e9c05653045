"""What the machine offers: versions, backends, the BLAS library and its kernels, threads, memory, and its speed.

Read before: `backends/numpy/blas.py`, which sets some of it. Read next: `counts.py`, for what a step needs of it.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import threadpoolctl

from .. import backends
from ..backends.numpy import blas

_LIBRARIES = ("numpy", "einops", "click", "regex", "rich", "safetensors", "threadpoolctl")
_WIDTH = 768  # of the matrices that are multiplied to measure a rate: 7 MB in all, and 9 ms at 100 GFLOP/s
_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def describe_machine() -> dict[str, dict[str, str]]:
    """Facts about this machine in sections, each a short text by name."""
    backends.get("numpy")
    found = backends.available()
    return {
        "versions": _versions(),
        "backends": {name: reason or "works" for name, reason in found.items()},
        **({} if found["cupy"] else {"GPU": _gpu()}),
        "BLAS": _blas(),
        "training": _training(),
        "machine": _machine(),
    }


def gemm_rate(threads: int = 1, *, seconds: float = 0.2, dtype: str = "float32") -> float:
    """The rate at which threads of ours multiply matrices, each with BLAS at one thread, as in training: FLOP/s.

    The best of the rounds that fit in the time, one product a thread in each: what else runs on the machine only takes
    away from it.

    Args:
        threads: that multiply at once.
        seconds: about how long to measure.
        dtype: of the matrices.
    """
    factors = np.random.default_rng(0).standard_normal((2, _WIDTH, _WIDTH)).astype(dtype)
    outs = [np.empty((_WIDTH, _WIDTH), dtype) for _ in range(threads)]
    best, end = np.inf, time.perf_counter() + seconds
    with threadpoolctl.threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
        while best == np.inf or time.perf_counter() < end:
            began = time.perf_counter()
            list(pool.map(lambda out: np.matmul(*factors, out=out), outs))
            best = min(best, time.perf_counter() - began)
    return 2 * _WIDTH**3 * threads / best


def _versions() -> dict[str, str]:
    versions = {"tinyformer": _version("tinyformer"), "python": platform.python_version()}
    return versions | {name: _version(name) for name in _LIBRARIES}


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _blas() -> dict[str, str]:
    found, pools = {}, blas.describe()
    for i, pool in enumerate(pools):
        mark = f" {i + 1}" if i else ""
        found[f"library{mark}"] = f"{pool['library']} {pool['version']}"
        found[f"kernels{mark}"] = str(pool["kernels"])
        found[f"threads{mark}"] = f"{pool['threads']}, outside of training"
    if any(pool["library"] == "openblas" for pool in pools):
        found["kernels are"] = blas.kernels_reason()
    return found or {"library": "none that can be asked; NumPy may use one of its own"}


def _gpu() -> dict[str, str]:
    xp = backends.get("cupy")
    free, total, _ = xp.memory()
    facts = {name: str(value) for name, value in xp.description().items()}
    return facts | {"memory": f"{total / 2**30:.1f} GiB, of which {free / 2**30:.1f} are free"}


def _training() -> dict[str, str]:
    threads = usable_cores()
    rates = {n: gemm_rate(n) for n in sorted({1, threads})}
    multiplied = ", ".join(f"{rate / 1e9:.0f} GFLOP/s by {n}" for n, rate in rates.items())
    return {
        "worker threads": f"{threads}, each with BLAS at one thread",
        "matrix products": f"{multiplied} (float32, measured)",
        "freed memory": blas.memory_settings(),
    }


def _machine() -> dict[str, str]:
    facts = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": f"{os.cpu_count()}, of which {usable_cores()} may be used",
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


def usable_cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> int:
    """Bytes of main memory; 0 where the system does not tell."""
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0
