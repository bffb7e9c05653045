"""How fast this machine reads as many bytes as a model has weights: each thread sums its share of them.

Read before: `contender.py`, `generation.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

from tinyformer import backends
from tinyformer.training.step import Workers

from .generation import READS


def prepare(folder: Path, threads: int, form: str) -> Callable[[], None]:
    """A step of some readings, each of every number once, in stretches that threads share."""
    xp = backends.get("numpy")
    numbers = (folder / "model.safetensors").stat().st_size // 4
    ends = [numbers * i // threads for i in range(threads + 1)]
    parts = [xp.ones(end - begin, dtype=xp.float32) for begin, end in itertools.pairwise(ends)]
    workers = Workers(threads)

    def step() -> None:
        for _ in range(READS):
            workers.map(xp.sum, parts)

    return step
