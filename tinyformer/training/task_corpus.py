"""Labelled examples as batches: what a fine-tuning trains on, and how it is measured.

Where pretraining cuts rows out of a text, each example here is a row, or several. An epoch shows each of them once, in
an order that is a function of (seed, step); and after it the model answers all examples kept apart, to be measured as
the task is.

Read before: `data.py`, `tinyformer/tasks/task.py`. Read next: `finetuning.py`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..objectives import Batch
from ..tasks import Example, Row, Task
from ..tasks.flow import computed
from ..tasks.metrics.classification import confusion_matrix
from ..text.batches import Shuffle
from ..text.spans import Progress
from . import task_examples
from .config import RunConfig
from .step import Workers


class TaskCorpus:
    """The examples of a task, as batches: what `data.Corpus` is for a text.

    Args:
        task: that the examples are of.
        train: those to train on.
        validation: those kept apart.
        config: the run's settings: rows of a step, the seed of the order.
        progress: called with bytes done, bytes in all, and what is being done.

    Attributes:
        tokenizer: makes the tokens.
        objective: the task.
        best: the figure by which the best weights are told.
        file: where more of them are, for a command to try next.
        rows: what the model reads of the examples to train on.
        epoch_steps: steps that show each of these once.
    """

    def __init__(
        self,
        task: Task,
        train: Sequence[Example],
        validation: Sequence[Example],
        config: RunConfig,
        progress: Progress = lambda done, total, what: None,
    ) -> None:
        self.objective, self.train, self.validation = task, train, validation
        self.tokenizer, self.best = task.tokenizer, task.best
        self.file = config.validation if isinstance(config.validation, str) else config.files[0]
        encoded = task_examples.encode(task, [*train, *validation], progress)
        self.rows = [row for rows in encoded[: len(train)] for row in rows]
        self._kept = encoded[len(train) :]
        self._shuffle = Shuffle(len(self.rows), config.seed)
        self.epoch_steps = -(-len(self.rows) // config.rows_per_step)
        self._epochs = config.epochs

    def batch(self, step: int, rows: int) -> Batch:
        """The batch of a step, counted from 1: a function of (seed, step), whatever came before.

        The last one of an epoch has what is left, which may be fewer rows.
        """
        count = len(self.rows)
        epoch, number = divmod(step - 1, -(-count // rows))
        first = number * rows
        _, items = self._shuffle.at(epoch * count + np.arange(first, min(first + rows, count)))
        return self.objective.corrupt([self.rows[item] for item in items.tolist()], [None] * len(items))

    def per_byte(self, part: Any, loss: float) -> None:
        """A task's loss is none of a text."""

    @functools.cached_property
    def baseline(self) -> dict[str, float]:
        """What knowing nothing (`Task.guess`) would reach on the validation examples, where that can be said."""
        if self._guess is None:
            return {}
        _, answer = self._guess
        found = self.objective.measure(self.validation, [answer(example) for example in self.validation])
        return {name: 0.0 if math.isnan(value) else value for name, value in found.items()}  # of always the same number

    @functools.cached_property
    def _guess(self) -> tuple[str, Callable[[Example], Any]] | None:
        return self.objective.guess(self.train)

    @property
    def facts(self) -> dict[str, Any]:
        """What the "start" event tells of the examples."""
        cut = sum(any(row.cut for row in rows) for rows in self._kept)
        return {
            "task": self.objective.name,
            "examples": len(self.train),
            "rows": len(self.rows),
            "epochs": self._epochs,
            "epoch_steps": self.epoch_steps,
            "validation_examples": len(self.validation),
            "validation_cut": cut,
            "cut": sum(bool(row.cut) for row in self.rows),
            "balance": self.objective.balance(self.train),
            "summary": self.objective.summary(self.train),
            "guess": self._guess and self._guess[0],
            "baseline": self.baseline,
        }

    @property
    def baselines(self) -> dict[str, Any]:
        """What to compare a validation with."""
        return {"task": self.objective.name, "measure": self.best, "baseline": self.baseline}

    def validate(
        self,
        model: Any,
        workers: Workers,
        *,
        step: int,
        rows: int,
        trained: int,
        last: bool,
        progress: Callable[[int, int], None],
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """How well a model does the task on all examples that were kept apart.

        Args:
            model: as it is now.
            workers: share the work.
            step: that was done last.
            rows: of a batch.
            trained: rows of training since the validation before; of the last one, since the beginning.
            last: whether the training ends with it.
            progress: called after each batch with rows done, and rows in all; what it raises ends the validation.

        Returns:
            The `epoch`, the `loss` and the task's figures; and what else the "validation" event has.
        """
        answers, sums = self._answers(model, workers, rows, progress=progress)
        total = sums.get("nats", sums.get("squares", math.nan))
        found = {"epoch": step / self.epoch_steps, "loss": total / (sums["tokens"] or 1.0)}
        found |= self.objective.measure(self.validation, answers)
        return found, {"tokens": int(sums["tokens"])}

    def report(
        self, model: Any, workers: Workers, *, rows: int, progress: Callable[[int, int], None]
    ) -> dict[str, Any]:
        """What there is to tell of the best weights: `labels`, and `confusion`, a row of counts for each of them."""
        if not (self.objective.labels and isinstance(self.validation[0].label, str)):
            return {}
        answers, _ = self._answers(model, workers, rows, score=False, progress=progress)
        return confusion(self.objective, self.validation, answers)

    def _answers(self, model: Any, workers: Workers, rows: int, **settings: Any) -> tuple[list[Any], dict[str, float]]:
        """To the examples that were kept apart; see `answers_of`."""
        settings |= {"rows": rows, "threads": workers.count}
        return answers_of(self.objective, model, self._kept, self.validation, **settings)


def confusion(task: Task, examples: Sequence[Example], answers: Sequence[Any]) -> dict[str, Any]:
    """Which label was taken for which: `labels`, and `confusion`, rows of counts; nothing of a task without classes."""
    if not task.labels or not all(isinstance(answer, str) for answer in answers):
        return {}
    counts = confusion_matrix([example.label for example in examples], answers, task.labels)
    return {"labels": list(task.labels), "confusion": counts.tolist()}


def answers_of(
    task: Task,
    model: Any,
    encoded: Sequence[Sequence[Row]],
    examples: Sequence[Example],
    *,
    rows: int,
    threads: int,
    score: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Any], dict[str, float]]:
    """A model's answers to examples, and the sums of the task's `score`.

    Args:
        task: that the model was made for.
        model: from `task.model`.
        encoded: the rows of each example.
        examples: as many.
        rows: of a batch; those of like length share one.
        threads: that compute a batch each.
        score: whether to score them, too; else there are no sums.
        progress: called after each batch with rows done, and rows in all; what it raises ends the work.
    """
    sums: dict[str, list[float]] = {}

    def compute(part: list[Row]) -> list[Any]:
        batch = task.corrupt(part, [None] * len(part))
        for name, value in (task.score(model, batch) if score else {}).items():
            sums.setdefault(name, []).append(value)
        return task.outputs(model, batch)

    total, answered = sum(map(len, encoded)), 0

    def done(count: int) -> None:
        nonlocal answered
        answered += count
        progress(answered, total)

    items, settings = zip(examples, encoded, strict=True), {"batch_size": rows, "threads": threads, "done": done}
    found = computed(items, lambda item: item[1], lambda row: len(row.ids), compute, **settings)
    answers = [task.answer(example, outputs) for (example, _), outputs in found]
    return answers, {name: math.fsum(values) for name, values in sums.items()}  # in whatever order they came
