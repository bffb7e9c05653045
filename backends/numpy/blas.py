"""Setting up the machine for NumPy: which matrix kernels OpenBLAS uses, and how memory is given back.

Both cost nothing in the code and are worth a factor of two. `choose_kernels` must run before NumPy is imported, so
this module imports nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys

_AVX512 = {"avx512f", "avx512dq", "avx512bw", "avx512vl"}
_CPUINFO = "/proc/cpuinfo"
_VARIABLE = "OPENBLAS_CORETYPE"
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8  # <malloc.h>

_reason = "OpenBLAS's own choice"  # for the kernels; set before NumPy is imported, and told by `kernels_reason`


def choose_kernels() -> None:
    """Let OpenBLAS use its AVX-512 kernels on AMD processors, where by itself it takes those for AVX2.

    On a Zen 5 the AVX-512 kernels multiply 1.9 times as fast. Intel processors get them without help. A user who has
    set OPENBLAS_CORETYPE keeps the choice. The last bits of products differ between kernels.
    """
    global _reason
    if _VARIABLE in os.environ:
        _reason = f"chosen by {_VARIABLE}={os.environ[_VARIABLE]}"
    elif "numpy" in sys.modules:
        _reason = "OpenBLAS's own choice, as NumPy was imported before tinyformer"
    elif platform.machine() == "x86_64":
        vendor, flags = _processor()
        if vendor == "AuthenticAMD" and flags >= _AVX512:
            os.environ[_VARIABLE] = "SkylakeX"
            _reason = "chosen by tinyformer, as OpenBLAS by itself leaves AVX-512 unused on processors of AMD"


def kernels_reason() -> str:
    """Why OpenBLAS uses the kernels that it does, for a user."""
    return _reason


def _processor() -> tuple[str, set[str]]:
    """Vendor and feature flags of the first processor, empty where /proc/cpuinfo does not tell."""
    vendor, flags = "", set()
    try:
        with open(_CPUINFO, encoding="ascii", errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() == "vendor_id":
                    vendor = value.strip()
                elif key.strip() == "flags":
                    flags = set(value.split())
                    break
    except OSError:
        pass
    return vendor, flags


def keep_memory() -> None:
    """Have glibc keep freed memory instead of returning it to the kernel after every large array.

    Large temporaries are otherwise mapped and unmapped again and again, and the page faults cost more than the
    arithmetic: a training step went from 48.6 to 32.1 ms. One arena lets worker threads share what is kept.
    """
    if not _has_mallopt():
        return
    libc = ctypes.CDLL(None)
    if not libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30):
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that glibc took before 2.35
    libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    libc.mallopt(_M_TOP_PAD, 64 << 20)
    libc.mallopt(_M_ARENA_MAX, 1)


def memory_settings() -> str:
    """What `keep_memory` has done, for a user."""
    if not _has_mallopt():
        return "returned to the system as its C library sees fit; only glibc can be told to keep it"
    return f"kept by {' '.join(platform.libc_ver())} for the next array, in one heap for all threads"


def _has_mallopt() -> bool:
    return sys.platform == "linux" and platform.libc_ver()[0] == "glibc"


def describe() -> list[dict[str, object]]:
    """What threadpoolctl finds of BLAS libraries: name, version, kernels and threads of each."""
    import threadpoolctl

    return [
        {
            "library": pool["internal_api"],
            "version": pool["version"],
            "kernels": pool.get("architecture", "unknown"),
            "threads": pool["num_threads"],
        }
        for pool in threadpoolctl.threadpool_info()
        if pool["user_api"] == "blas"
    ]
