"""What all tasks have in common: examples of a user's file in, answers and a measure of them out.

A task is an objective with labels: `corrupt` makes a batch of encoded examples, `loss` scores what a model says of it,
so that whatever runs an objective runs a task. Beyond that it knows how a file is read, which head goes onto a
pretrained body, and how good a list of answers is.

An example becomes one row for the model, or several where a text is too long for the context (`answer`). What the
model says comes row by row (`outputs`), and all outputs of an example together give its answer.

Read before: `tinyformer/objectives/objective.py`, `examples.py`. Read next: `encoding.py`, `heads.py`, `model.py`, then
the tasks: `classify.py`, `regress.py`, `tag.py`, `answer.py`, `text2text.py`.
"""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np

from .. import nn
from ..errors import UsageError
from ..models import Model, ModelConfig
from ..objectives import Batch, Objective
from ..text import Tokenizer
from .examples import Columns, Example
from .model import TaskModel


@dataclasses.dataclass(frozen=True)
class Row:
    """What a model reads of an example.

    Attributes:
        ids: tokens, int32, of one axis.
        segments: which of two texts each token belongs to, likewise; None for all 0.
        target: what the model should say: a class, a number, a class for each token, two places, the target's tokens;
            None where it is not known.
        cut: tokens of the example that the context left no room for.
        origin: what a task needs to know again to understand its answer, such as where tokens stand in the text.
    """

    ids: np.ndarray
    segments: np.ndarray | None = None
    target: Any = None
    cut: int = 0
    origin: Any = None


class Task(Objective):
    """What a pretrained model is fine-tuned to do.

    Args:
        tokenizer: of the run.
        config: of the pretrained model.
        labels: that are known, in the order of their numbers; from `labels_of` the examples to train on.
        prefix: put before each text (text2text).
        options: a task's own, all of them with defaults.

    Attributes:
        name: for users.
        modes: of the models that can do it.
        best: of the names that `measure` gives, the one by which the best epoch is told; more is better.
        form: what a line of a file holds, for messages and help.
        frozen: whether the head alone is trained.

    Raises:
        UsageError: the model is of a mode that cannot do this task; says what can.
    """

    modes: ClassVar[tuple[str, ...]]
    best: ClassVar[str]
    form: ClassVar[str] = "text TAB label"
    frozen = False

    def __init__(
        self, tokenizer: Tokenizer, config: ModelConfig, *, labels: Sequence[str] = (), prefix: str = ""
    ) -> None:
        if config.mode not in self.modes:
            able = [task for task in _all_tasks(Task) if config.mode in task.modes]
            instead = ", ".join(sorted({task.name for task in able}))
            raise UsageError(
                f"a model of mode {config.mode} cannot do the task {self.name}; it can do {instead}, and "
                f"{self.name} takes one of mode {' or '.join(self.modes)}"
            )
        self.tokenizer, self.config, self.mode = tokenizer, config, config.mode
        self.labels, self.prefix = tuple(labels), prefix

    # Files

    @classmethod
    @abc.abstractmethod
    def stream(
        cls,
        source: Path | str | IO[bytes],
        columns: Columns = Columns(),
        *,
        labelled: bool = True,
        warn: Callable[[str], None] = lambda message: None,
    ) -> Iterator[Example]:
        """The examples of a file, one after the other, without holding it in memory.

        Args:
            source: a file's path, or an open one, such as standard input.
            columns: their names, where there are some.
            labelled: whether each example must have a label; else one that has none is taken, too.
            warn: told, in a sentence, what was passed over.

        Raises:
            UsageError: the file is missing or empty, or a line is no example: says which, and what is expected.
        """

    @classmethod
    def read(
        cls,
        source: Path | str,
        columns: Columns = Columns(),
        *,
        warn: Callable[[str], None] = lambda message: None,
    ) -> list[Example]:
        """All examples of a file, with labels; see `stream`."""
        return list(cls.stream(source, columns, warn=warn))

    @classmethod
    def labels_of(cls, examples: Sequence[Example]) -> tuple[str, ...]:
        """The labels of the examples to train on, sorted: what a run keeps. None where a task has no such labels.

        Raises:
            UsageError: there are too few of them, or a label is there once only.
        """
        return ()

    @classmethod
    def teaches(cls, example: Example) -> bool:
        """Whether an example's label tells what to look for; of those to train on, one at least must."""
        return True

    @classmethod
    def balance(cls, examples: Sequence[Example]) -> dict[str, int]:
        """How many examples there are of each label, the most common first; nothing where a task has none."""
        return {}

    @classmethod
    def summary(cls, examples: Sequence[Example]) -> dict[str, float]:
        """What else there is to tell of the labels of examples, in figures."""
        return {}

    @classmethod
    def guess(cls, examples: Sequence[Example]) -> tuple[str, Callable[[Example], Any]] | None:
        """What to say of a text that was not read, knowing only the labels of other examples: to compare a model with.

        Returns:
            In words what is said, and the answer to an example; None where nothing is likely enough.
        """
        return None

    def check_examples(self, examples: Sequence[Example]) -> None:
        """Raise a UsageError where an example has a label that is not among those of the training; names both."""
        return

    # What a model sees

    @abc.abstractmethod
    def rows(self, example: Example) -> list[Row]:
        """An example, encoded: at least one row.

        Raises:
            UsageError: it cannot be encoded, or its label is unknown.
        """

    @abc.abstractmethod
    def corrupt(self, rows: Sequence[Row], rngs: Sequence[Any] = ()) -> Batch:
        """A batch of rows; nothing is random. Rows without a target may be there if no loss is asked for."""

    def head(self, init: nn.Initializer) -> nn.Module | None:
        """What goes onto the body, with fresh parameters; None where nothing does."""
        return None

    def model(self, body: Model, init: nn.Initializer) -> TaskModel | Model:
        """A pretrained body with a fresh head; the body itself where the task needs none."""
        head = self.head(init)
        return body if head is None else TaskModel(body, head, frozen=self.frozen)

    def check(self, model: Any) -> None:
        """Raise a UsageError unless the model is of the mode that the task was made for."""
        if model.config.mode != self.mode:
            raise UsageError(
                f"this task {self.name} was made for models of mode {self.mode}, and this one is of mode "
                f"{model.config.mode}"
            )

    # What it says

    @abc.abstractmethod
    def outputs(self, model: Any, batch: Batch) -> list[Any]:
        """What the model says of each row, on the host, without a gradient: probabilities, a number, scores, a text."""

    @abc.abstractmethod
    def answer(self, example: Example, outputs: Sequence[Any]) -> Any:
        """The answer to an example, of the kind of its label, from the outputs of its rows."""

    @abc.abstractmethod
    def measure(self, examples: Sequence[Example], answers: Sequence[Any]) -> dict[str, float]:
        """How good answers are, by name; one of the names is `best`. At least one example."""

    @abc.abstractmethod
    def describe(self, example: Example, outputs: Sequence[Any]) -> dict[str, Any]:
        """The answer to an example and what supports it, as values that JSON can hold."""


def file_of(examples: Sequence[Example]) -> str:
    """What a message calls the file that examples are from, by the place of the first."""
    found = re.match(r"(.+), (line|article) \d", examples[0].place)
    return found[1] if found else "the file"


def _all_tasks(kind: type[Task]) -> Iterator[type[Task]]:
    """The tasks that are there, which are the classes with a name."""
    for inner in kind.__subclasses__():
        if hasattr(inner, "name"):
            yield inner
        yield from _all_tasks(inner)
