"""NumPy as a backend: the namespace is NumPy itself, the gaps are filled with what NumPy does fast.

Read next: `kernels.py`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from ..contract import Backend
from . import blas, products
from .adamw import adamw
from .kernels import KERNELS


class NumpyBackend(Backend):
    """The CPU, and the reference for every other backend."""

    name = "numpy"

    def __init__(self) -> None:
        super().__init__(np)
        blas.keep_memory()
        self.kernels = KERNELS
        self.updates = {"adamw": adamw}

    def sharing(self, threads: int) -> AbstractContextManager[None]:
        """Inside, so many threads share each large product: for inference, which has no batch to share out."""
        return products.sharing(threads)

    def is_floating(self, array: Any) -> bool:
        return array.dtype.kind == "f"

    def scatter_add(self, shape: tuple[int, ...], indices: np.ndarray, values: np.ndarray) -> np.ndarray:
        # Sorted, equal indices lie side by side, and each run is one sum: several times as fast as np.add.at.
        out = np.zeros(shape, values.dtype)
        if indices.size:
            order = np.argsort(indices, kind="stable")
            indices = indices[order]
            starts = np.flatnonzero(np.concatenate(([True], indices[1:] != indices[:-1])))
            out[indices[starts]] = np.add.reduceat(values[order], starts, axis=0)
        return out
