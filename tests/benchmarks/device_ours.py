"""Our training step on a GPU, as the trainer takes it: recorded and replayed, or call by call.

Read before: `ours.py`, `tinyformer/training/device_step.py`. Read next: `torch_cuda.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

from tinyformer.models import build
from tinyformer.training.device_step import DeviceStep
from tinyformer.training.optimizer import AdamW, FlatParameters

from .cases import BETAS, CLIP, EPSILON, LEARNING_RATE, WEIGHT_DECAY, make_objective, read_case


def prepare(folder: Path, threads: int, form: str) -> Callable[[], list[float]]:
    """A step that returns its loss and the norm of its gradient.

    Args:
        folder: of the case.
        threads: unused; a GPU has its own.
        form: "graph" or "eager", a space, and the precision: "float32", "tf32" or "bfloat16".
    """
    way, precision = form.split()
    case = read_case(folder)
    model = build(case.config, backend="cupy", seed=None)
    model.assign(case.weights)
    objective = make_objective(case.config.mode, case.config.vocabulary)
    flat = FlatParameters(model.parameters(), case.rates, working="bfloat16" if precision == "bfloat16" else None)
    beta1, beta2 = BETAS
    optimizer = AdamW.of(flat, beta1=beta1, beta2=beta2, epsilon=EPSILON, weight_decay=WEIGHT_DECAY)
    rounding = "tf32" if precision == "tf32" else "float32"
    device = DeviceStep(model, objective, flat, optimizer, clip=CLIP, rounding=rounding, record=way == "graph")
    numbers = itertools.count(1)

    def step() -> list[float]:
        number = next(numbers)
        device.start(device.prepare(case.batch, number), learning_rate=LEARNING_RATE, step=number)
        outcome = device.finish()
        return [outcome.loss, outcome.gradient_norm]

    return step
