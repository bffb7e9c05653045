"""CuPy as a backend: the namespace is CuPy's, and what it lacks, or does by waiting for the GPU, is filled in.

Read before: `backends/contract.py`. Read next: `kernels.py`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import cupy

from ..contract import Backend
from . import products
from .kernels import KERNELS, UPDATES


class CupyBackend(Backend):
    """One NVIDIA GPU."""

    name = "cupy"
    alignment = 16

    def __init__(self) -> None:
        super().__init__(cupy)
        self.kernels, self.updates = KERNELS, UPDATES

    def matmul(self, a: Any, b: Any) -> Any:
        return products.matmul(a, b)

    def rounding(self, precision: str) -> AbstractContextManager[None]:
        return products.rounding(precision)
