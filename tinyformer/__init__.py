"""tinyformer: a from-scratch transformer toolkit. One small autograd core, NumPy on the CPU, one command to train.

Reading order: `tensor.py` (the engine), `ops.py` (the primitives and their derivatives), `functional.py` (attention,
norms and losses composed of them), `fused.py`, `nn/` (layers), `models/`, `objectives/`, `training/`, `generation/`.
"""

from . import backends, einops_backend, functional, ops
from .errors import TinyformerError, UsageError
from .gradcheck import check_gradients
from .tensor import Tensor, backward, no_grad, primitive

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
    "no_grad",
    "ops",
    "primitive",
]
