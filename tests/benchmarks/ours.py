"""Our training step, with worker threads as the trainer has them: BLAS at one thread in each.

Read before: `contender.py`. Read next: `torch_peer.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import threadpoolctl

from tinyformer.models import build
from tinyformer.training.optimizer import AdamW, FlatParameters
from tinyformer.training.step import Workers, training_step

from .cases import BETAS, CLIP, EPSILON, LEARNING_RATE, WEIGHT_DECAY, make_objective, read_case


def prepare(folder: Path, threads: int, form: str) -> Callable[[], list[float]]:
    """A step that returns its loss and the norm of its gradient."""
    case = read_case(folder)
    model = build(case.config, seed=None)
    model.assign(case.weights)
    objective = make_objective(case.config.mode, case.config.vocabulary)
    unreached = [name for name in model.parameters() if name.startswith(objective.unreached)]
    parameters = {name: tensor for name, tensor in model.parameters().items() if name not in unreached}
    flat = FlatParameters(parameters, case.rates)
    beta1, beta2 = BETAS
    optimizer = AdamW.of(flat, beta1=beta1, beta2=beta2, epsilon=EPSILON, weight_decay=WEIGHT_DECAY)
    numbers, workers, batch = itertools.count(1), Workers(threads), case.batch
    threadpoolctl.threadpool_limits(1, "blas")

    def step() -> list[float]:
        outcome = training_step(
            model,
            objective,
            flat,
            optimizer,
            batch,
            learning_rate=LEARNING_RATE,
            clip=CLIP,
            step=next(numbers),
            workers=workers,
        )
        return [outcome.loss, outcome.gradient_norm]

    return step
