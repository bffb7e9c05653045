"""Fine-tuning: a pretrained model learns a task from labelled examples (Radford 2018, §3.2; Devlin 2019, §4).

It is training with another corpus (`task_corpus.py`); everything else is the trainer's: the loop, checkpoints, signals,
logs. After each epoch the weights are kept in `best/` if they did the task better than all before them.

Read before: `tinyformer/tasks/task.py`, `task_corpus.py`, `tuning.py`. Read next: `trainer.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ..analysis.machine import usable_cores
from ..errors import TinyformerError, UsageError
from ..models import ModelConfig
from ..tasks import TASKS, Columns, Task
from ..tasks.encoding import tell_cut
from ..text import load_tokenizer
from ..text.spans import Progress
from . import task_examples
from .choices import inherited_shape, inherited_tokenizer, machine_for, model_config
from .config import RunConfig, absolute
from .rundir import Run, open_run
from .task_corpus import TaskCorpus, answers_of, confusion
from .tuning import default_rate

MOST_LABELS, LONGEST_LABEL = 1000, 200


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
    _check_labels(config, labels)
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


def open_task(run: Run, config: RunConfig, *, context: int | None = None) -> Task:
    """The task of a run that was fine-tuned.

    Args:
        run: its directory.
        config: its settings.
        context: for a model that sees so many tokens; that of the run's own where None.

    Raises:
        TinyformerError: its tokenizer is missing or damaged.
    """
    shape = model_config(config)
    shape = shape if context is None else dataclasses.replace(shape, context=context)
    return make_task(config, load_tokenizer(run.tokenizer_file), shape)


def evaluate(
    run: Run,
    model: Any,
    file: str,
    columns: Columns | None = None,
    *,
    threads: int = 1,
    warn: Callable[[str], None] = lambda message: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """How well a fine-tuned model does its task on the labelled examples of a file.

    Args:
        run: of the model.
        model: with its weights, from `tinyformer.load`.
        file: of any form that the task reads.
        columns: as the user names them; else those that the run was fine-tuned with.
        threads: that compute a batch each; BLAS should have one thread then.
        warn: told, in a sentence, what is strange about the examples.
        progress: called after each batch with rows done, and rows in all.

    Returns:
        `examples`, how many there are; the task's figures; of a task with classes, `labels` and `confusion`.

    Raises:
        UsageError: the file cannot be used, or has a label that the run does not know.
        TinyformerError: it cannot be read.
    """
    config = run.config()
    task = open_task(run, config)
    examples = task.read(file, (columns or Columns()).beside(columns_of(run, config)), warn=warn)
    task.check_examples(examples)
    encoded = task_examples.encode(task, examples)
    cut = sum(any(row.cut for row in rows) for rows in encoded)
    if remark := tell_cut(cut, len(examples), task.config.context):
        warn(remark)
    settings = {"rows": config.batch_size, "threads": threads, "score": False, "progress": progress}
    answers, _ = answers_of(task, model, encoded, examples, **settings)
    return {"examples": len(examples), **task.measure(examples, answers), **confusion(task, examples, answers)}


def columns_of(run: Run, config: RunConfig) -> Columns:
    """Names of columns that a run's settings have, and of a task of one or two texts how many the run's examples have.

    A file that holds something else than was trained on would be answered all the same, with nonsense.
    """
    either = getattr(TASKS[config.task], "texts", 1) is None
    texts = task_examples.texts_of(run.train_examples) if either else None
    return Columns(config.text, config.pair, config.label, optional=True, texts=texts)


def _check_labels(config: RunConfig, labels: tuple[str, ...]) -> None:
    """Raise a UsageError where labels look like anything else, which nobody would want a head for."""
    longest = max(map(len, labels), default=0)
    if len(labels) <= MOST_LABELS and longest <= LONGEST_LABEL:
        return
    what = f"{len(labels):,} different labels, and at most {MOST_LABELS:,} can be told apart"
    if longest > LONGEST_LABEL:
        what = f"a label of {longest:,} characters, and {LONGEST_LABEL} are the most"
    column = "the last column" if config.label is None else f"the column {config.label}"
    raise UsageError(f"{config.files[0]} has {what}; does {column} hold labels?")


def _settle(config: RunConfig, shape: ModelConfig, corpus: TaskCorpus) -> RunConfig:
    """The settings with all that was left open."""
    steps = config.epochs * corpus.epoch_steps
    if (config.warmup or 0) > steps:
        raise UsageError(
            f"--warmup {config.warmup} is longer than all {steps} steps (--epochs {config.epochs}, of "
            f"{corpus.epoch_steps} steps each); lower it, or give more --epochs"
        )
    batch_size = min(config.batch_size, len(corpus.rows))
    model = {name: value for name, value in dataclasses.asdict(shape).items() if value is not None}
    model.pop("mode")
    rate = default_rate(shape, frozen=bool(config.freeze)) if config.learning_rate is None else config.learning_rate
    return config.replace(
        model=model,
        tokenizer=str(open_run(config.init_from).tokenizer_file.absolute()),
        batch_size=batch_size,
        steps=steps,
        eval_every=corpus.epoch_steps,
        save_every=min(corpus.epoch_steps, config.save_every),
        sample_every=0,
        learning_rate=rate,
        warmup=steps // 10 if config.warmup is None else config.warmup,
        backend=machine_for(config),
        threads=min(usable_cores(), batch_size) if config.threads is None else config.threads,
    )
