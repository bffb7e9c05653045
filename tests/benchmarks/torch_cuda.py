"""torch's training step on a GPU: eager with its own attention kernels, compiled, and compiled into CUDA graphs.

Read before: `torch_peer.py`, whose models these are. Read next: `device.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import torch

from .cases import BATCH, BETAS, CLIP, EPSILON, LEARNING_RATE, WEIGHT_DECAY, WEIGHTS, read_config
from .torch_models import MODELS, arguments
from .torch_peer import load


def prepare(folder: Path, threads: int, form: str, device: str = "cuda") -> Callable[[], list[float]]:
    """A step that returns its loss and the norm of its gradient.

    Args:
        folder: of the case.
        threads: unused; a GPU has its own.
        form: "eager", "compile" or "graphs" (compiled, with CUDA graphs), a space, and the precision: "float32", "tf32"
            or "bfloat16" (autocast, with float32 weights).
        device: as torch names it.
    """
    way, precision = form.split()
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    config, rates = read_config(folder)
    batch, weights = ({name: x.to(device) for name, x in load(folder / file).items()} for file in (BATCH, WEIGHTS))
    model = MODELS[config.mode](weights, config, batch).to(device)
    del weights
    inputs = arguments(batch, config.mode)
    loss_of = model
    if way != "eager":
        loss_of = torch.compile(model, mode="reduce-overhead" if way == "graphs" else "default")
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, eps=EPSILON, fused=True)
    if rates:
        raise ValueError("the models of this comparison have one learning rate")

    def step() -> list[float]:
        half = torch.autocast(device, torch.bfloat16) if precision == "bfloat16" else contextlib.nullcontext()
        with half:
            loss = loss_of(**inputs)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return torch.stack((loss.detach().float(), norm)).tolist()  # waits for the device once

    return step
