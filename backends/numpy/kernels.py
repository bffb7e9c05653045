"""Fused kernels for the CPU. Each computes what the composed function of the same name in `tinyformer/functional.py`
defines, with fewer passes over memory.

A NumPy operation on a large array reads and writes memory once; the arithmetic is free beside it. So a kernel saves
time by doing a chain of operations on a block that stays in cache, and by not forming what the gradient does not need.

Read before: `tinyformer/fused.py`. Read next: `linear.py`, `norms.py`, `activations.py`, `loss.py`, `attention.py`.
"""

from __future__ import annotations

from ..contract import Kernel
from .activations import gated, gelu, relu, silu
from .attention import attention
from .dropout import dropout
from .linear import linear
from .loss import cross_entropy
from .norms import layer_norm, rms_norm
from .rotary import rotary
from .softmax import softmax

KERNELS: dict[str, Kernel] = {
    "attention": attention,
    "cross_entropy": cross_entropy,
    "dropout": dropout,
    "gated": gated,
    "gelu": gelu,
    "layer_norm": layer_norm,
    "linear": linear,
    "relu": relu,
    "rms_norm": rms_norm,
    "rotary": rotary,
    "silu": silu,
    "softmax": softmax,
}
