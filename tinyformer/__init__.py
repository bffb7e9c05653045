"""tinyformer: a from-scratch transformer toolkit. One small autograd core, NumPy on the CPU, one command to train.

Reading order: `tensor.py` (the engine), `ops.py` (the primitives and their derivatives), `functional.py` (attention,
norms and losses composed of them), `fused.py`, `nn/` (layers), `models/`, `objectives/`, `training/`, `generation/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import backends, einops_backend, functional, nn, operators, ops
from .errors import TinyformerError, UsageError
from .gradcheck import check_gradients
from .tensor import Tensor, backward, no_grad, primitive

if TYPE_CHECKING:
    from .loading import load

__version__ = "0.1.0"

__all__ = [
    "Tensor",
    "TinyformerError",
    "UsageError",
    "backends",
    "backward",
    "check_gradients",
    "einops_backend",
    "functional",
    "load",
    "nn",
    "no_grad",
    "operators",
    "ops",
    "primitive",
]


def __getattr__(name: str) -> Any:
    """`load` comes at its first use: it brings NumPy with it, which `import tinyformer` does without."""
    if name == "load":
        from .loading import load

        return load
    raise AttributeError(f"module 'tinyformer' has no attribute {name!r}")
