"""torch's training step: eager, through torch.compile, or with bfloat16 products (autocast).

Read before: `torch_models.py`. Read next: `jax_peer.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
import torch._inductor.compile_fx

from .cases import BATCH, BETAS, CLIP, EPSILON, LEARNING_RATE, WEIGHT_DECAY, WEIGHTS, read_config
from .torch_models import MODELS, arguments

FASTEST = {"fused": True}  # of AdamW's two forms: the other, foreach, made steps 1.04 to 1.05 times as long


def load(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file as copies, for the file's own pages would count as memory of the process."""
    return {name: tensor.clone() for name, tensor in safetensors.torch.load_file(path).items()}


def prepare(folder: Path, threads: int, form: str) -> Callable[[], list[float]]:
    """A step that returns its loss and the norm of its gradient.

    Args:
        folder: of the case.
        threads: of torch.
        form: "eager", "compile" or "bfloat16".
    """
    torch.set_num_threads(threads)
    config, rates = read_config(folder)
    batch, weights = load(folder / BATCH), load(folder / WEIGHTS)
    model = MODELS[config.mode](weights, config, batch)
    del weights
    inputs = arguments(batch, config.mode)
    loss_of = torch.compile(model) if form == "compile" else model
    groups: dict[tuple[float, float], list] = {}
    for name, parameter in model.named_parameters():
        factor = rates.get(f"{name}.weight", 1.0)
        decay = WEIGHT_DECAY / factor if parameter.ndim >= 2 else 0.0
        groups.setdefault((LEARNING_RATE * factor, decay), []).append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": found, "lr": rate, "weight_decay": decay} for (rate, decay), found in groups.items()],
        betas=BETAS,
        eps=EPSILON,
        **FASTEST,
    )

    def step() -> list[float]:
        precision = torch.autocast("cpu", torch.bfloat16) if form == "bfloat16" else contextlib.nullcontext()
        with precision:
            loss = loss_of(**inputs)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return [loss.item(), norm.item()]

    return step
