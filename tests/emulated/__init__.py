"""CUDA kernels on the CPU, for tests where there is no GPU: a compiler for them, and a stand-in for CuPy."""

import contextlib
import importlib.util
import sys
import types

from . import compiler

__all__ = ["available", "backend", "compiler", "install", "real_device"]


def real_device():
    """Whether there is a GPU that CuPy can use; its package may be there without one."""
    found = sys.modules.get("cupy")
    if found is not None and hasattr(found, "emulated"):
        return False
    if importlib.util.find_spec("cupy") is None:
        return False
    import cupy

    return cupy.cuda.is_available()


def install():
    """Put the stand-in in the place of CuPy, unless there is a real device; and hand out what is used as CuPy."""
    if real_device():
        import cupy

        return cupy
    if not hasattr(sys.modules.get("cupy"), "emulated"):
        from tests.emulated import cublaslt, cupy
        from tests.emulated.cupy import cuda, runtime, special

        cublaslt.install()
        scipy, cupyx = types.ModuleType("cupyx.scipy"), types.ModuleType("cupyx")
        cupyx.scipy, scipy.special = scipy, special
        sys.modules.update(
            {
                "cupy": cupy,
                "cupy.cuda": cuda,
                "cupy.cuda.runtime": runtime,
                "cupyx": cupyx,
                "cupyx.scipy": scipy,
                "cupyx.scipy.special": special,
            }
        )
    return sys.modules["cupy"]


@contextlib.contextmanager
def available(devices=2):
    """Inside, the stand-in says that there are so many devices; outside of it, that there is none."""
    switches = install().emulated.switches
    before = dict(switches)
    switches.update(available=devices > 0, devices=devices)
    try:
        yield
    finally:
        switches.update(before)


def backend():
    """The CuPy backend, on a real device or an emulated one."""
    from tinyformer import backends

    if real_device():
        return backends.get("cupy")
    with available():
        return backends.get("cupy")
