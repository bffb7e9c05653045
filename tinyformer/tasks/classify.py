"""Which of some classes a text is of, or a pair of texts: sentiment, topic; whether one text follows from the other.

Read before: `whole_texts.py`. Read next: `regress.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import UsageError
from ..generation.filters import log_softmax
from ..objectives import Batch
from ..objectives.objective import Prediction
from ..tensor import Array, Tensor, no_grad
from .examples import Example, count_labels
from .metrics import classification
from .whole_texts import WholeTexts

SHOWN = 12  # labels in a message


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
            only = "".join(f" ({label!r})" for label in counts)
            raise UsageError(f"there is one class only{only}, so nothing to tell apart; add examples of another")
        for example in examples:
            if counts[example.label] == 1:
                raise UsageError(
                    f"{example.place}: the label {example.label!r} is there once only, too little to learn from; "
                    "correct it, add examples of it, or remove the line"
                )
        return tuple(sorted(counts))

    @classmethod
    def balance(cls, examples: Sequence[Example]) -> dict[str, int]:
        """How many examples there are of each class, the most common first."""
        return count_labels(examples)

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
