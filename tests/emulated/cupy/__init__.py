"""A stand-in for CuPy, for tests where there is no GPU: its arrays are NumPy's, and its kernels run on the CPU.

It is at least as strict as CuPy 14.2: arrays of NumPy do not mix with its own, what CuPy lacks is absent, reductions
give arrays without axes, and what would make the host wait for the device is counted in `emulated.counts`. A stream
that is being captured does nothing but write down. Memory that was freed is used again, and new memory is rubbish.

Read next: `calls.py`, `state.py`.
"""

import sys

import numpy

from . import array as _array
from . import cuda, functions, memory
from . import state as emulated
from .array import ndarray
from .functions import OURS as _OURS
from .raw_module import RawModule

__version__ = "14.2.0"
pi, e, inf, nan, newaxis = numpy.pi, numpy.e, numpy.inf, numpy.nan, None

globals().update(_OURS)

__all__ = ["RawModule", "cuda", "emulated", "ndarray"]


def __getattr__(name):
    value = functions.lookup(name)
    globals()[name] = value
    return value


def module():
    return sys.modules[__name__]


def get_default_memory_pool():
    return memory.default_pool


def is_available():
    return cuda.is_available()


del _array
