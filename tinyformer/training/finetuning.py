"""Fine-tuning: a pretrained model learns a task from labelled examples (Radford 2018, §3.2; Devlin 2019, §4).

It is training with another corpus. Where pretraining cuts rows out of a text, each example here is a row, or several;
an epoch shows each of them once, in an order that is a function of (seed, step); and after an epoch the model answers
all examples kept apart, to be measured as the task is, and its weights are kept in `best/` if that was the best so far.
Everything else is the trainer's: the loop, checkpoints, signals, logs.

Read before: `tinyformer/tasks/task.py`, `data.py`, `task_examples.py`. Read next: `loop.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..analysis.machine import usable_cores
from ..errors import TinyformerError, UsageError
from ..models import ModelConfig
from ..objectives import Batch
from ..tasks import TASKS, Columns, Example, Row, Task
from ..tasks.metrics.classification import confusion_matrix
from ..text import load_tokenizer
from ..text.batches import Shuffle
from ..text.spans import Progress
from . import task_examples
from .choices import inherited_shape, inherited_tokenizer, machine_for, model_config
from .config import RunConfig, absolute
from .rundir import Run, open_run
from .step import Workers, split
from .tuning import default_rate

MOST_LABELS = 1000


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
        """What always saying the commonest label would reach on the validation examples, where that can be said."""
        if not self.balance:
            return {}
        commonest = next(iter(self.balance))
        if not isinstance(self.validation[0].label, str):
            return {}
        return self.objective.measure(self.validation, [commonest] * len(self.validation))

    @functools.cached_property
    def balance(self) -> dict[str, int]:
        """How many examples to train on there are of each label, the most common first."""
        return self.objective.balance(self.train)

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
            "balance": self.balance,
            "baseline": self.baseline,
        }

    @property
    def baselines(self) -> dict[str, Any]:
        """What to compare a validation with."""
        return {"task": self.objective.name, "measure": self.best, "baseline": self.baseline}

    def validate(
        self, model: Any, workers: Workers, *, step: int, rows: int, trained: int, last: bool
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """How well a model does the task on all examples that were kept apart.

        Args:
            model: as it is now.
            workers: share the work.
            step: that was done last.
            rows: of a batch.
            trained: rows of training since the validation before; of the last one, since the beginning.
            last: whether the training ends with it.

        Returns:
            The `epoch`, the `loss` and the task's figures; and what else the "validation" event has.
        """
        answers, sums = answers_of(self.objective, model, self._kept, self.validation, workers, rows=rows)
        total = sums.get("nats", sums.get("squares", math.nan))
        found = {"epoch": step / self.epoch_steps, "loss": total / (sums["tokens"] or 1.0)}
        found |= self.objective.measure(self.validation, answers)
        return found, {"tokens": int(sums["tokens"])}

    def report(self, model: Any, workers: Workers, *, rows: int) -> dict[str, Any]:
        """What there is to tell of the best weights: `labels`, and `confusion`, a row of counts for each of them."""
        if not self.baseline:
            return {}
        answers, _ = answers_of(self.objective, model, self._kept, self.validation, workers, rows=rows, score=False)
        return confusion(self.objective, self.validation, answers)


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
    workers: Workers,
    *,
    rows: int,
    score: bool = True,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> tuple[list[Any], dict[str, float]]:
    """A model's answers to examples, and the sums of the task's `score`.

    Args:
        task: that the model was made for.
        model: from `task.model`.
        encoded: the rows of each example.
        examples: as many.
        workers: share the work.
        rows: of a batch; those of about the same length share one.
        score: whether to score them, too; else there are no sums.
        progress: called with rows done, rows in all, and what is being done.
    """
    flat = [(number, row) for number, rows in enumerate(encoded) for row in rows]
    order = sorted(range(len(flat)), key=lambda place: len(flat[place][1].ids), reverse=True)
    outputs: list[Any] = [None] * len(flat)
    sums: dict[str, list[float]] = {}

    def run(part: Batch) -> tuple[list[Any], dict[str, float]]:
        return task.outputs(model, part), task.score(model, part) if score else {}

    for first in range(0, len(order), rows):
        places = order[first : first + rows]
        batch = task.corrupt([flat[place][1] for place in places], [None] * len(places))
        found = workers.map(run, split(batch, workers.count))
        for place, output in zip(places, (output for outputs, _ in found for output in outputs), strict=True):
            outputs[place] = output
        for name, value in (item for _, counted in found for item in counted.items()):
            sums.setdefault(name, []).append(value)
        progress(first + len(places), len(order), "answering")
    own: list[list[Any]] = [[] for _ in examples]
    for (number, _), output in zip(flat, outputs):
        own[number].append(output)
    answers = [task.answer(example, outputs) for example, outputs in zip(examples, own, strict=True)]
    return answers, {name: math.fsum(values) for name, values in sums.items()}


def make_task(config: RunConfig, tokenizer: Any, shape: ModelConfig) -> Task:
    """The task that a run's settings name.

    Raises:
        UsageError: a model of that mode cannot do it, or there is no head that could be trained alone.
    """
    task = TASKS[config.task](tokenizer, shape, labels=config.labels or (), prefix=config.prefix or "")
    if config.freeze:
        if shape.mode == "encoder-decoder":
            raise UsageError(f"--freeze trains a task's head alone, and {task.name} adds none; leave it out")
        task.frozen, task.unreached = True, ("body.", *task.unreached)
    return task


def prepare(
    run: Run, config: RunConfig, progress: Progress, warn: Callable[[str], None]
) -> tuple[RunConfig, ModelConfig, TaskCorpus]:
    """Read the examples of a new run and put them into its directory, and settle whatever was left open.

    Args:
        run: where they go.
        config: the settings, with a task.
        progress: called with bytes done, bytes in all, and what is being done.
        warn: told, in a sentence, what is strange about the examples.

    Returns:
        The settings with everything chosen, the model's shape, and the examples.

    Raises:
        UsageError: the settings contradict each other, or the examples cannot be used.
        TinyformerError: a file cannot be read or written.
    """
    if config.init_from is None:
        raise UsageError("fine-tuning begins with a pretrained model; name a run")
    if len(config.files) != 1:
        raise UsageError("fine-tuning reads its examples from one file; name one")
    machine_for(config)
    shape, tokenizer = inherited_shape(config), inherited_tokenizer(config)
    config = config.replace(mode=shape.mode, labels=None)
    kind = type(make_task(config, tokenizer, shape))  # so that a wrong mode is told before a long file is read
    train, validation = task_examples.read(kind, config, warn)
    labels = kind.labels_of(train if isinstance(config.validation, str) else [*train, *validation])
    if len(labels) > MOST_LABELS:
        column = "the last column" if config.label is None else f"the column {config.label}"
        raise UsageError(
            f"{config.files[0]} has {len(labels):,} different labels, and at most {MOST_LABELS:,} can be told apart; "
            f"does {column} hold labels?"
        )
    config = config.replace(labels=labels or None)
    task = make_task(config, tokenizer, shape)
    task.check_examples(validation)
    checksums = [
        task_examples.write(path, examples)
        for path, examples in ((run.train_examples, train), (run.validation_examples, validation))
    ]
    tokenizer.save(run.tokenizer_file)
    paths = {name: absolute(name, getattr(config, name)) for name in ("files", "validation", "init_from")}
    config = config.replace(examples=tuple(checksums), epochs=config.epochs or 1, **paths)
    corpus = TaskCorpus(task, train, validation, config, progress)
    return _settle(config, shape, corpus), shape, corpus


def reopen(run: Run, config: RunConfig) -> tuple[ModelConfig, TaskCorpus]:
    """What `prepare` made, for a run that goes on.

    Raises:
        TinyformerError: the tokenizer or the examples are missing or damaged.
    """
    if not run.tokenizer_file.exists():
        raise TinyformerError(f"the run has lost its tokenizer.json; put {run.tokenizer_file} back, or start a new run")
    tokenizer, shape = load_tokenizer(run.tokenizer_file), model_config(config)
    train, validation = (
        task_examples.read_back(path, checksum)
        for path, checksum in zip((run.train_examples, run.validation_examples), config.examples or ("", ""))
    )
    return shape, TaskCorpus(make_task(config, tokenizer, shape), train, validation, config)


def open_task(run: Run, config: RunConfig) -> Task:
    """The task of a run that was fine-tuned.

    Raises:
        TinyformerError: its tokenizer is missing or damaged.
    """
    return make_task(config, load_tokenizer(run.tokenizer_file), model_config(config))


def columns_of(config: RunConfig) -> Columns:
    """Names of columns that a run's settings have."""
    return Columns(config.text, config.pair, config.label)


def _settle(config: RunConfig, shape: ModelConfig, corpus: TaskCorpus) -> RunConfig:
    """The settings with all that was left open."""
    steps = config.epochs * corpus.epoch_steps
    model = {name: value for name, value in dataclasses.asdict(shape).items() if value is not None}
    model.pop("mode")
    rate = default_rate(shape, frozen=bool(config.freeze)) if config.learning_rate is None else config.learning_rate
    return config.replace(
        model=model,
        tokenizer=str(open_run(config.init_from).tokenizer_file.absolute()),
        steps=steps,
        eval_every=corpus.epoch_steps,
        save_every=min(corpus.epoch_steps, config.save_every),
        sample_every=0,
        learning_rate=rate,
        warmup=steps // 10 if config.warmup is None else config.warmup,
        backend=machine_for(config),
        threads=min(usable_cores(), config.batch_size) if config.threads is None else config.threads,
    )
