"""One training step: the gradient of a batch, in pieces that fit, shared out over worker threads.

The loss of every piece is divided by the target tokens of the whole batch, and dropout is drawn for each row by
itself. So the pieces' losses and gradients add up to those of the batch, however it is cut and however many targets
each row has.

NumPy and BLAS let go of the interpreter, so threads that each run forward and backward on some rows, with BLAS at one
thread, keep all cores busy with everything, not only with matrix products. They share the parameters and nothing else:
`backward` stores nothing in them. Gradients are added up in a fixed order, and so are the same in every run.

Read before: `optimizer.py`. Read next: `checkpoint.py`.
"""

from __future__ import annotations

import contextvars
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from ..objectives import Batch
from ..tensor import backward
from .optimizer import AdamW, FlatParameters, clip_scale

_In, _Out = TypeVar("_In"), TypeVar("_Out")

DROPOUT = 1  # the second number of its random stream; `tinyformer/text/sources.py` has others


class Workers:
    """Threads that run a function on several things at once. A context manager: leaving it ends them.

    Args:
        count: of threads. With one, everything runs where it is called.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count) if count > 1 else None

    def map(self, function: Callable[[_In], _Out], items: Sequence[_In]) -> list[_Out]:
        """The results for all items, in their order. `no_grad` holds in the threads where it holds here."""
        if self._pool is None or len(items) == 1:
            return [function(item) for item in items]
        jobs = [self._pool.submit(contextvars.copy_context().run, function, item) for item in items]
        return [job.result() for job in jobs]

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def split(batch: Batch, parts: int) -> list[Batch]:
    """A batch as consecutive parts of almost equal size, none of them empty."""
    rows = len(batch.inputs)
    ends = [rows * i // parts for i in range(parts + 1)]
    return [batch.rows(begin, end) for begin, end in itertools.pairwise(ends) if end > begin]


def accumulate_gradient(
    model: Any,
    objective: Any,
    flat: FlatParameters,
    batch: Batch,
    *,
    micros: int,
    seed: int,
    step: int,
    workers: Workers,
) -> float:
    """Put the gradient of a batch's mean loss into `flat.gradients`.

    Args:
        model: whose parameters `flat` holds.
        objective: gives the loss of a part of the batch.
        flat: takes the gradient.
        batch: of one step.
        micros: forward passes, one after the other, to cut the batch into.
        seed: of the run.
        step: with the seed, fixes the dropout.
        workers: share the rows of each forward pass.

    Returns:
        The mean loss per target token; not finite where something went wrong.
    """
    losses, row = [], 0

    def run(job: tuple[range, Batch]) -> tuple[float, dict]:
        rows, part = job
        rng = flat.backend.generator(seed, DROPOUT, step, rows=rows)
        loss = objective.loss(model, part, whole=batch, rng=rng)
        return float(loss.item()), backward(loss)

    for micro in split(batch, micros):
        jobs = []
        for part in split(micro, workers.count):
            jobs.append((range(row, row + len(part.inputs)), part))
            row += len(part.inputs)
        found = workers.map(run, jobs)

        def add(part: slice, found: list = found, first: bool = not losses) -> None:
            for number, (_, gradients) in enumerate(found):
                flat.accumulate(gradients, first=first and number == 0, part=part)

        workers.map(add, flat.parts(workers.count))
        losses += [loss for loss, _ in found]
    return math.fsum(losses) if all(map(math.isfinite, losses)) else math.nan


class Outcome(NamedTuple):
    """What a step did.

    Attributes:
        loss: mean per target token, nats, before the update.
        gradient_norm: before clipping.
        updated: False where loss or gradient was not finite; the weights are then as they were.
    """

    loss: float
    gradient_norm: float
    updated: bool


def training_step(
    model: Any,
    objective: Any,
    flat: FlatParameters,
    optimizer: AdamW,
    batch: Batch,
    *,
    micros: int = 1,
    learning_rate: float,
    clip: float = 0.0,
    seed: int = 0,
    step: int,
    workers: Workers,
) -> Outcome:
    """Gradient, clipping, update. Nothing is updated unless loss and gradient are finite.

    Args:
        model: whose parameters `flat` holds.
        objective: gives the loss.
        flat: parameters and gradients.
        optimizer: changes the parameters.
        batch: the rows of this step.
        micros: forward passes to cut it into.
        learning_rate: of this step.
        clip: largest norm of the gradient; 0 for any.
        seed: of the run.
        step: counted from 1.
        workers: share the work.
    """
    loss = accumulate_gradient(model, objective, flat, batch, micros=micros, seed=seed, step=step, workers=workers)
    parts = flat.parts(workers.count)
    norm = math.sqrt(sum(workers.map(flat.gradient_square, parts)))
    finite = math.isfinite(loss) and math.isfinite(norm)
    if finite:
        settings = {"learning_rate": learning_rate, "step": step, "gradient_scale": clip_scale(norm, clip)}
        workers.map(lambda part: optimizer.update(flat, part=part, **settings), parts)
    return Outcome(loss, norm, finite)


class HostStep:
    """`training_step` for one model, in the three parts of a step that a device takes; see `device_step.DeviceStep`.

    Args:
        model: whose parameters `flat` holds.
        objective: gives the loss.
        flat: parameters and gradients.
        optimizer: changes the parameters.
        workers: share the work.
        settings: further arguments that are the same in each step.

    Attributes:
        ahead: whether the next step should be prepared while one is going on.
    """

    ahead = False

    def __init__(
        self, model: Any, objective: Any, flat: FlatParameters, optimizer: AdamW, workers: Workers, **settings: Any
    ) -> None:
        self._fixed, self._settings = (model, objective, flat, optimizer), settings | {"workers": workers}
        self._given: dict[str, Any] = {}

    def prepare(self, batch: Batch, step: int) -> Batch:
        """The batch as it is."""
        return batch

    def start(self, prepared: Batch, *, learning_rate: float, step: int) -> None:
        """Take note of what is to be done."""
        self._given = {"batch": prepared, "learning_rate": learning_rate, "step": step}

    def finish(self) -> Outcome:
        """Do it."""
        return training_step(*self._fixed, **self._given, **self._settings)


def score(model: Any, objective: Any, batches: Iterable[Batch], workers: Workers) -> dict[str, float]:
    """What the objective counts when it scores a model: sums over all batches, without training."""
    parts: list[dict[str, float]] = []
    for batch in batches:
        parts += workers.map(lambda part: objective.score(model, part), split(batch, workers.count))
    return {name: math.fsum(part[name] for part in parts) for name in parts[0]}
