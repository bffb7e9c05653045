"""A number for a text or a pair of texts: how good a review is, how alike two sentences are.

The model is trained on numbers with mean 0 and deviation 1, whatever those of the file are: a head that starts near 0
would take long to reach the price of a house. So its loss is a share of the variance, and 1 is that of knowing nothing.

Read before: `whole_texts.py`. Read next: `tag.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import ops
from ..errors import UsageError
from ..objectives import Batch
from ..tensor import Array, Tensor
from .examples import Columns, Example
from .lines import Source
from .metrics import correlation
from .task import file_of
from .whole_texts import WholeTexts


class Regress(WholeTexts):
    """A number. `labels` are the mean and the deviation of those trained on, as texts; none for 0 and 1."""

    name, best = "regress", "pearson"
    form = "text [TAB text] TAB number"
    texts = None
    width = 1

    def __init__(self, *inputs: Any, **settings: Any) -> None:
        super().__init__(*inputs, **settings)
        try:
            self.mean, self.deviation = map(float, self.labels or (0.0, 1.0))
        except ValueError:
            self.mean = self.deviation = math.nan
        if not (math.isfinite(self.mean) and 0 < self.deviation < math.inf):
            raise UsageError(
                f"labels of {self.name} are a mean and a deviation, and they are {', '.join(map(repr, self.labels))}; "
                "put the run's config.toml back as it was"
            )

    @classmethod
    def stream(
        cls,
        source: Source,
        columns: Columns = Columns(),
        *,
        labelled: bool = True,
        warn: Callable[[str], None] = lambda message: None,
    ) -> Iterator[Example]:
        """The examples of a file; see `Task.stream`. A label that is no finite number is a UsageError."""
        for example in super().stream(source, columns, labelled=labelled, warn=warn):
            yield example if example.label is None else _numbered(example)

    @classmethod
    def labels_of(cls, examples: Sequence[Example]) -> tuple[str, ...]:
        """The mean and the deviation of the numbers.

        Raises:
            UsageError: they are all the same, or so large or so alike that float64 cannot hold their deviation.
        """
        numbers = np.array([example.label for example in examples])
        if numbers.min() == numbers.max():
            raise UsageError(
                f"all examples of {file_of(examples)} have the number {numbers[0]:g}, so there is nothing to learn; "
                "add examples with others to it"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            mean, deviation = float(numbers.mean()), float(numbers.std())
        if not (math.isfinite(mean) and 0 < deviation < math.inf):
            raise UsageError(
                f"the numbers of {file_of(examples)}, from {numbers.min():g} to {numbers.max():g}, have no deviation "
                "that can be computed; give them in another unit"
            )
        return repr(mean), repr(deviation)

    @classmethod
    def summary(cls, examples: Sequence[Example]) -> dict[str, float]:
        """The `mean` and the `deviation` of the numbers, the `least` and the `most`."""
        numbers = np.array([example.label for example in examples])
        found = {"mean": numbers.mean(), "deviation": numbers.std(), "least": numbers.min(), "most": numbers.max()}
        return {name: float(value) for name, value in found.items()}

    @classmethod
    def guess(cls, examples: Sequence[Example]) -> tuple[str, Callable[[Example], float]]:
        """The mean."""
        mean = cls.summary(examples)["mean"]
        return "the mean", lambda example: mean

    def target(self, example: Example) -> float | None:
        """The number, in deviations from the mean."""
        return None if example.label is None else (float(example.label) - self.mean) / self.deviation

    def judge(self, scores: Tensor, labels: Array, *, total: int) -> Tensor:
        """Squared error, as a share of the variance."""
        xp = scores.backend
        errors = scores[:, 0] - Tensor(xp.astype(xp.from_host(labels), scores.dtype))
        return ops.sum(errors * errors) * (1.0 / total)

    def score(self, model: Any, batch: Batch) -> dict[str, float]:
        """Sums over the batch: `squares` of the errors, as shares of the variance, and `tokens`, the examples."""
        errors = self.scores(model, batch)[:, 0].astype(np.float64) - batch.labels
        return {"squares": float(errors @ errors), "tokens": float(len(batch))}

    def outputs(self, model: Any, batch: Batch) -> list[float]:
        """The number of each row, in the file's unit."""
        return (self.scores(model, batch)[:, 0].astype(np.float64) * self.deviation + self.mean).tolist()

    def answer(self, example: Example, outputs: Sequence[float]) -> float:
        """The number."""
        return outputs[0]

    def measure(self, examples: Sequence[Example], answers: Sequence[float]) -> dict[str, float]:
        """`mse` in the square of the file's unit, `pearson` and `spearman`."""
        return correlation.measure([example.label for example in examples], answers)

    def describe(self, example: Example, outputs: Sequence[float]) -> dict[str, Any]:
        """`number`."""
        return {"number": round(outputs[0], 6)}


def _numbered(example: Example) -> Example:
    try:
        number = float(example.label)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{example.place}: {example.label!r} is no number; write one, such as 2.5, or remove the line")
    return Example(example.texts, number, example.place, example.key)
