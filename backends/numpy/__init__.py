"""The NumPy backend, the reference on the CPU.

Importing this package imports no NumPy: `choose_kernels` must run before that happens for the first time.
"""

from .blas import choose_kernels

__all__ = ["choose_kernels"]
