"""Fused kernels for the GPU. Each computes what the composed function of the same name in `tinyformer/functional.py`
defines.

A GPU has arithmetic in plenty, and waits for memory: a kernel reads each number once, as 128 bits at a time, computes
in float32 whatever it stores, and writes what the gradient needs and nothing else.

Read before: `launch.py`, `tinyformer/fused.py`. Read next: the pairs of a `.py` and a `.cu` file beside this one.
"""

from __future__ import annotations

from collections.abc import Callable

from ..contract import Kernel
from .activations import gated, gelu, relu, silu
from .adamw import adamw, adamw_recorded, gather, judge
from .attention import attention
from .dropout import dropout
from .feed_forward import feed_forward
from .linear import linear
from .loss import cross_entropy
from .norms import layer_norm, rms_norm
from .rotary import rotary
from .softmax import softmax

KERNELS: dict[str, Kernel] = {
    "attention": attention,
    "cross_entropy": cross_entropy,
    "dropout": dropout,
    "feed_forward": feed_forward,
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

UPDATES: dict[str, Callable[..., None]] = {
    "adamw": adamw,
    "adamw_recorded": adamw_recorded,
    "gather": gather,
    "judge": judge,
}
