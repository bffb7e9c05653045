"""How fast this machine multiplies matrices: the rate that a training step is measured against.

A thread for each worker multiplies squares of float32, all at once, with NumPy and BLAS at one thread in each: the
products of a training step at their best. It takes its turns like every other contender, so that a step and the rate it
is divided by come from the same seconds; `analysis.machine.gemm_rate`, the best of a fifth of a second, which training
and `doctor` tell, was 1.5 to 4 % higher in the same run.

Read before: `contender.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import threadpoolctl

from tinyformer import backends
from tinyformer.training.step import Workers

WIDTH = 2048


def flops(threads: int) -> int:
    """Of a step: one product on each thread."""
    return 2 * threads * WIDTH**3


def prepare(folder: Path, threads: int, form: str) -> Callable[[], None]:
    """A step of one product on each thread."""
    xp = backends.get("numpy")
    factors = xp.generator(0, 0).normal((2, WIDTH, WIDTH), xp.float32)
    outs, workers = [xp.empty((WIDTH, WIDTH), dtype=xp.float32) for _ in range(threads)], Workers(threads)
    threadpoolctl.threadpool_limits(1, "blas")

    def step() -> None:
        workers.map(lambda out: xp.matmul(*factors, out=out), outs)

    return step
