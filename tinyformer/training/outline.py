"""What a run will be like, worked out before anything large is allocated.

Read before: `data.py`. Read next: `loop.py`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from .. import backends, models, nn
from ..analysis import counts
from ..analysis.machine import memory
from ..errors import TinyformerError
from ..models import ModelConfig
from ..objectives import Batch
from ..tensor import Tensor
from .config import RunConfig
from .data import Corpus, tokens_read

MOST_ROWS = 64  # to look at


class Unallocated(nn.Initializer):
    """Makes parameters of the right shape that share one number, so that they take no memory."""

    def normal(self, *shape: int, std: float) -> Tensor:
        return self.constant(*shape, value=0.0)

    def weight(self, inputs: int, outputs: int, *, std: float) -> Tensor:
        return self.constant(inputs, outputs, value=0.0)

    def constant(self, *shape: int, value: float) -> Tensor:
        return Tensor(self.backend.broadcast_to(self.backend.zeros((), dtype=self.dtype), shape), requires_grad=True)


def facts(config: RunConfig, shape: ModelConfig, corpus: Corpus) -> dict[str, Any]:
    """What is about to be trained, on what, and which figures to compare with: the "start" event's content."""
    sample = _sample(config, corpus)
    return {
        "steps": config.steps,
        "parameters": sum(math.prod(t.shape) for t in _outline(config, shape, corpus).parameters().values()),
        "model": dataclasses.asdict(shape),
        "objective": config.objective or corpus.objective.name,
        "label_smoothing": config.label_smoothing,
        "tokenizer": corpus.tokenizer.kind,
        "lengths": _lengths(shape, sample)._asdict(),
        "tokens_per_step": round(tokens_read(sample) * config.rows_per_step / len(sample)),
        "learning_rate": config.learning_rate,
        "backend": config.backend,
        "precision": config.precision,
        "threads": config.threads or 1,
        "devices": config.devices,
        **corpus.facts,
    }


def costs(config: RunConfig, shape: ModelConfig, corpus: Corpus) -> dict[str, Any]:
    """Shapes and counts of parameters, FLOPs of a step and its memory in bytes: the "dry_run" event's content."""
    model, lengths = _outline(config, shape, corpus), _lengths(shape, _sample(config, corpus))
    return {
        "shapes": {name: list(tensor.shape) for name, tensor in model.parameters().items()},
        "parameters_by_part": counts.parameters_by_part(shape),
        "flops_per_step": counts.training_flops(shape, config.rows_per_step, lengths),
        "memory_per_step": _memory(config, shape, lengths),
    }


def needed_flops(config: RunConfig, shape: ModelConfig, corpus: Corpus) -> int:
    """FLOPs of the matrix products that a step needs, on rows like those of the first batch."""
    return counts.needed_flops(shape, config.rows_per_step, _lengths(shape, _sample(config, corpus)))


def check_memory(config: RunConfig, shape: ModelConfig, corpus: Corpus) -> None:
    """Refuse a run that is far too large, which would push everything else out of memory before it is killed.

    Raises:
        TinyformerError: even a low estimate is above what the machine has, or its GPU has left.
    """
    on_gpu = config.backend != "numpy"
    machine = backends.get(config.backend).memory()[0] if on_gpu else memory()
    if not machine:
        return
    lengths = _lengths(shape, _sample(config, corpus))
    needed = _memory(config, shape, lengths)
    needed["activations"] = needed["activations"] * 2 // 3  # which are known within a factor of 1.5
    needed["batch"] = 12 * config.rows_per_step * max(lengths)  # ids, targets and weights of 4 bytes
    total = sum(needed.values())
    if total > machine:
        has = f"the GPU has {_gigabytes(machine)} free" if on_gpu else f"the machine has {_gigabytes(machine)}"
        have = f"this run needs at least {_gigabytes(total)} and {has}"
        raise TinyformerError(f"{have}; a smaller model, context, --batch-size or --grad-accumulation needs less")


def _outline(config: RunConfig, shape: ModelConfig, corpus: Corpus) -> Any:
    """The model that is about to be made, without its numbers."""
    init = Unallocated(dtype=config.dtype)
    return corpus.objective.model(models.make(shape, init), init)


def _sample(config: RunConfig, corpus: Corpus) -> Batch:
    """Some rows of the first batch, which shows how long rows are."""
    return corpus.batch(1, min(config.rows_per_step, MOST_ROWS))


def _lengths(shape: ModelConfig, batch: Batch) -> counts.Lengths:
    """Tokens in a row of a batch, with its padding, which costs what tokens cost."""
    inputs, scored = batch.inputs.shape[1], math.ceil(batch.tokens / len(batch))
    if shape.mode == "encoder":
        return counts.Lengths(inputs, 0, scored)
    if batch.decoder_inputs is None:
        return counts.Lengths(0, inputs, inputs)
    return counts.Lengths(inputs, batch.targets.shape[1], batch.targets.shape[1])


def _memory(config: RunConfig, shape: ModelConfig, lengths: counts.Lengths) -> dict[str, int]:
    itemsize = {"float64": 8, "bfloat16": 2 if config.backend != "numpy" else 4}.get(config.precision, 4)
    if config.backend != "numpy":
        rows = -(-config.batch_size // config.devices)
        return counts.training_memory_of_gpu(shape, rows, lengths, itemsize=itemsize)
    workers = min(config.threads or 1, config.batch_size)
    return counts.training_memory(shape, config.batch_size, lengths, itemsize=itemsize, workers=workers)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
