"""What a run will be like, worked out before anything large is allocated.

Read before: `data.py`. Read next: `loop.py`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from .. import models, nn
from ..analysis import counts
from ..analysis.machine import memory
from ..errors import TinyformerError
from ..models import ModelConfig
from ..tensor import Tensor
from .config import RunConfig
from .data import Corpus


class _Unallocated(nn.Initializer):
    """Makes parameters of the right shape that share one number, so that they take no memory."""

    def normal(self, *shape: int, std: float) -> Tensor:
        return self.constant(*shape, value=0.0)

    def constant(self, *shape: int, value: float) -> Tensor:
        return Tensor(self.backend.broadcast_to(self.backend.zeros((), dtype=self.dtype), shape), requires_grad=True)


def facts(config: RunConfig, shape: ModelConfig, corpus: Corpus) -> dict[str, Any]:
    """What is about to be trained, on what, and which losses to compare with: the "start" event's content."""
    return {
        "steps": config.steps,
        "parameters": counts.count_parameters(shape),
        "model": dataclasses.asdict(shape),
        "tokenizer": corpus.tokenizer.kind,
        "train_tokens": len(corpus.train),
        "validation_tokens": len(corpus.validation),
        "tokens_per_step": config.rows_per_step * corpus.context,
        "learning_rate": config.learning_rate,
        "backend": config.backend,
        "precision": config.precision,
        "threads": config.threads or 1,
        **corpus.references(),
    }


def costs(config: RunConfig, shape: ModelConfig) -> dict[str, Any]:
    """Shapes and counts of parameters, FLOPs of a step and its memory in bytes: the "dry_run" event's content."""
    model = models.make(shape, _Unallocated(dtype=config.precision))
    return {
        "shapes": {name: list(tensor.shape) for name, tensor in model.parameters().items()},
        "parameters_by_part": counts.parameters_by_part(shape),
        "flops_per_step": counts.training_flops(shape, config.rows_per_step),
        "memory_per_step": _memory(config, shape),
    }


def check_memory(config: RunConfig, shape: ModelConfig) -> None:
    """Refuse a run that is far too large, which would push everything else out of memory before it is killed.

    Raises:
        TinyformerError: even a low estimate is above what the machine has; a GPU looks after itself.
    """
    if config.backend != "numpy" or not (machine := memory()):
        return
    needed = _memory(config, shape)
    needed["activations"] = needed["activations"] * 2 // 3  # which are known within a factor of 1.5
    needed["batch"] = 12 * config.rows_per_step * shape.context  # ids, targets and weights of 4 bytes
    total = sum(needed.values())
    if total > machine:
        have = f"this run needs about {_gigabytes(total)} and the machine has {_gigabytes(machine)}"
        raise TinyformerError(f"{have}; a smaller model, context, --batch-size or --grad-accumulation needs less")


def _memory(config: RunConfig, shape: ModelConfig) -> dict[str, int]:
    return counts.training_memory(shape, config.batch_size, itemsize=8 if config.precision == "float64" else 4)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
