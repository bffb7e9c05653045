"""Which of some classes a text is of, or a pair of texts: sentiment, topic; whether one text follows from the other.

Read before: `whole_texts.py`. Read next: `regress.py`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import UsageError
from ..generation.filters import log_softmax
from ..objectives import Batch
from ..objectives.objective import Prediction
from ..tensor import Array, Tensor, no_grad
from .examples import Example, count_labels
from .metrics import classification
from .task import file_of
from .whole_texts import WholeTexts

SHOWN = 12  # labels in a message
FEW = 5  # of those that are there once
LONGEST_COLUMN = 30  # characters of what may be a column's name


class Classify(WholeTexts):
    """The class of a text. `labels` are the classes' names."""

    name, best = "classify", "accuracy"
    form = "text TAB label"
    texts = 1

    @property
    def width(self) -> int:
        """A score for each class."""
        return len(self.labels)

    @classmethod
    def labels_of(cls, examples: Sequence[Example]) -> tuple[str, ...]:
        """The classes that there are, sorted.

        Raises:
            UsageError: there is one only, or an example is the only one of its class.
        """
        counts = count_labels(examples)
        if len(counts) < 2:
            raise UsageError(
                f"{file_of(examples)} has one class only ({examples[0].label!r}), so there is nothing to tell apart; "
                "add examples of another class to it"
            )
        if alone := [example for example in examples if counts[example.label] == 1]:
            raise UsageError(_once(alone))
        return tuple(sorted(counts))

    @classmethod
    def balance(cls, examples: Sequence[Example]) -> dict[str, int]:
        """How many examples there are of each class, the most common first."""
        return count_labels(examples)

    @classmethod
    def guess(cls, examples: Sequence[Example]) -> tuple[str, Callable[[Example], str]]:
        """The commonest class."""
        commonest = next(iter(count_labels(examples)))
        return commonest, lambda example: commonest

    def check_examples(self, examples: Sequence[Example]) -> None:
        """Raise a UsageError where an example has a label that is not among those of the training; names both."""
        for example in examples:
            if example.label is not None:
                self.target(example)

    def target(self, example: Example) -> int | None:
        """The number of the class.

        Raises:
            UsageError: it is unknown.
        """
        if example.label is None:
            return None
        if example.label not in self.labels:
            known = ", ".join(map(repr, self.labels[:SHOWN])) + (", ..." if len(self.labels) > SHOWN else "")
            raise UsageError(
                f"{example.place or 'an example'}: the label {example.label!r} is none of those that were trained on "
                f"({known}); correct it, or remove the line"
            )
        return self.labels.index(example.label)

    def judge(self, scores: Tensor, labels: Array, *, total: int) -> Tensor:
        """Cross-entropy, nats."""
        return Prediction(scores, labels).nats(total=total)

    @no_grad()
    def score(self, model: Any, batch: Batch) -> dict[str, float]:
        """Sums over the batch, of the classes alone; see `Objective.score`."""
        prediction = self.predict(model, batch)
        return prediction.sums(prediction.right())

    def outputs(self, model: Any, batch: Batch) -> list[np.ndarray]:
        """The probability of each class, float64, for each row."""
        return list(np.exp(log_softmax(self.scores(model, batch))))

    def answer(self, example: Example, outputs: Sequence[np.ndarray]) -> str:
        """The most probable class."""
        return self.labels[int(outputs[0].argmax())]

    def measure(self, examples: Sequence[Example], answers: Sequence[str]) -> dict[str, float]:
        """`accuracy`, and `f1` of the second of two classes or `macro_f1` of more."""
        return classification.measure([example.label for example in examples], answers, self.labels)

    def describe(self, example: Example, outputs: Sequence[np.ndarray]) -> dict[str, Any]:
        """`label`, and the `probabilities` of all classes, the most probable first."""
        shares = outputs[0]
        order = np.argsort(-shares, kind="stable")
        probabilities = {self.labels[i]: round(float(shares[i]), 6) for i in order}
        return {"label": self.answer(example, outputs), "probabilities": probabilities}


class Pair(Classify):
    """The class of a pair of texts."""

    name = "pair"
    form = "text TAB text TAB label"
    texts = 2


def _once(alone: Sequence[Example]) -> str:
    """What is told of labels that one example each has."""
    alone = sorted(alone, key=lambda example: _line(example.place))
    first = alone[0]
    if len(alone) == 1:
        said = f"{first.place}: the label {first.label!r} is there once only, too little to learn from; "
        said += "correct it, add examples of it, or remove the line"
    else:
        parts = [f"{example.label!r} ({example.place.rpartition(', ')[2]})" for example in alone[:FEW]]
        shown = f"{', '.join(parts)}, and {len(alone) - FEW:,} more" if len(alone) > FEW else ""
        said = f"{file_of(alone)}: the labels {shown or ', '.join(parts[:-1]) + ' and ' + parts[-1]} "
        said += "are there once only, too little to learn from; correct them, add examples of them, or remove the lines"
    if first.place.endswith(", line 1") and all(len(text) <= LONGEST_COLUMN for text in (*first.texts, first.label)):
        given = zip(("text", "pair"), first.texts)
        names = [f"--{role} {shlex.quote(text)} " for role, text in given if text != role]
        said += f"; is line 1 a header? then add {''.join(names)}--label {shlex.quote(first.label)}"
    return said


def _line(place: str) -> int:
    """The number in "FILE, line 12"."""
    number = place.rpartition(" ")[2]
    return int(number) if number.isdecimal() else 0
