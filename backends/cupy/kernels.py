"""Fused kernels for the GPU. Each computes what the composed function of the same name in `tinyformer/functional.py`
defines.

A GPU has arithmetic in plenty, and waits for memory: a kernel reads each number once, as 128 bits at a time, computes
in float32 whatever it stores, and writes what the gradient needs and nothing else.

Read before: `launch.py`, `tinyformer/fused.py`. Read next: the pairs of a `.py` and a `.cu` file beside this one.
"""

from __future__ import annotations

from collections.abc import Callable

from ..contract import Kernel
from .adamw import adamw, adamw_recorded, gather, judge
from .attention import attention
from .linear import linear

KERNELS: dict[str, Kernel] = {
    "attention": attention,
    "linear": linear,
}

UPDATES: dict[str, Callable[..., None]] = {
    "adamw": adamw,
    "adamw_recorded": adamw_recorded,
    "gather": gather,
    "judge": judge,
}
