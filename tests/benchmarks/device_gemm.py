"""How fast a GPU multiplies matrices of bfloat16, through our own products: what a training step is measured against.

Read before: `contender.py`. Read next: `device.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tinyformer import backends

WIDTH, PRODUCTS = 8192, 8


def flops() -> int:
    """Of a step."""
    return 2 * PRODUCTS * WIDTH**3


def prepare(folder: Path, threads: int, form: str) -> Callable[[], None]:
    """A step of some products, of drawn numbers: a GPU that multiplies zeros is faster than it can be at work.

    Args:
        folder: unused.
        threads: unused.
        form: the dtype, or "tf32".
    """
    xp, rng = backends.get("cupy"), np.random.default_rng(0)
    dtype = xp.bfloat16 if form == "bfloat16" else xp.float32
    a, b = (xp.astype(xp.from_host(rng.standard_normal((WIDTH, WIDTH), np.float32)), dtype) for _ in range(2))

    def step() -> None:
        with xp.rounding("tf32" if form == "tf32" else "float32"):
            for _ in range(PRODUCTS):
                out = xp.matmul(a, b)
        xp.to_host(out[:1, :1])  # waits

    return step
