"""How well a decoder does a task that it was only shown: accuracy against the number of shots (Brown 2020, figure 1.2).

Which examples are shown makes much of a difference. So they are drawn several times, at random and without putting one
back, and the standard error of the mean tells how much it would move with other draws. With more shots, a draw keeps
those that it has: what differs between two numbers of shots is only what was added.

Read before: `candidates.py`, `writing.py`.
"""

from __future__ import annotations

import bisect
import collections
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..errors import UsageError
from ..tasks import Example
from ..text.spans import Progress
from .candidates import Answer
from .template import Template, make_prompt


class Answerer(Protocol):
    """`Candidates` or a `Writer`: `prepare` gives something with a `length` in tokens, which `answers` takes."""

    model: Any

    def prepare(self, prompt: str, place: str = ...) -> Any: ...

    def answers(self, prepared: Sequence[Any], done: Any = ...) -> list[Answer]: ...


@dataclass(frozen=True)
class Answered:
    """One answer: after how many shots, in which draw, to what, and how many shots there was no room for."""

    k: int
    draw: int
    query: Example
    answer: Answer
    left_out: int = 0

    @property
    def right(self) -> bool | None:
        """Whether it is the label, but for white space around; None where that is not known."""
        return None if self.query.label is None else self.answer.text.strip() == self.query.label.strip()


@dataclass(frozen=True)
class Result:
    """What came of one number of shots.

    Attributes:
        k: how many shots.
        answered: every answer, draw by draw.
    """

    k: int
    answered: tuple[Answered, ...]

    @property
    def accuracies(self) -> list[float]:
        """The share of right answers in each draw; of what has labels."""
        draws: dict[int, list[bool]] = collections.defaultdict(list)
        for each in self.answered:
            if each.right is not None:
                draws[each.draw].append(each.right)
        return [sum(right) / len(right) for right in draws.values()]

    @property
    def accuracy(self) -> float | None:
        """The mean over the draws; None where nothing has a label."""
        found = self.accuracies
        return sum(found) / len(found) if found else None

    @property
    def standard_error(self) -> float | None:
        """Of that mean, over draws of the shots; None where there is only one draw."""
        found = self.accuracies
        return float(np.std(found, ddof=1) / len(found) ** 0.5) if len(found) > 1 else None

    @property
    def shortened(self) -> int:
        """How many prompts had no room for all shots."""
        return sum(each.left_out > 0 for each in self.answered)


@dataclass(frozen=True)
class Experiment:
    """What is asked, and after which examples.

    Where there are no queries, a draw's are the examples that it does not show, at any of the numbers of shots.

    A prompt that is longer than the model's context loses shots, the first ones, until it fits.

    Attributes:
        template: how examples are written.
        shots: examples to draw from.
        queries: what to ask; None to ask what is left.
        numbers: of shots.
        draws: how often shots are drawn.
        seed: of the draws.
        limit: ask at most so many queries in each draw.
        description: stands before the examples.

    Raises:
        UsageError: there are not as many shots, or none is left to ask.
    """

    template: Template
    shots: Sequence[Example]
    queries: Sequence[Example] | None = None
    numbers: tuple[int, ...] = (0, 1, 4)
    draws: int = 5
    seed: int = 0
    limit: int | None = None
    description: str = ""

    def __post_init__(self) -> None:
        if not self.numbers or min(self.numbers) < 0:
            raise UsageError(f"numbers of shots are 0 or more, not {', '.join(map(str, self.numbers)) or 'none'}")
        for name, value in (("draws", self.draws), ("limit", self.limit)):
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")
        if self.seed < 0:
            raise UsageError(f"seed must be 0 or more, not {self.seed}")
        most, there = max(self.numbers), len(self.shots)
        if most > there:
            raise UsageError(f"{most} shots cannot be drawn from {_examples(there)}; ask for fewer, or give more")
        if self.queries is None and most == there:
            raise UsageError(
                f"all {_examples(there)} are shots, and none is left to ask; ask for fewer shots, or give a FILE"
            )

    @property
    def asked(self) -> Sequence[Example]:
        """All that may be asked."""
        return self.shots if self.queries is None else self.queries

    def draw(self, number: int) -> tuple[list[Example], list[Example]]:
        """The shots of a draw, of which the first ones are shown, and its queries in the order of their file."""
        order = np.random.default_rng([self.seed, number]).permutation(len(self.shots)).tolist()
        most = max(self.numbers)
        if self.queries is None:
            queries = [self.shots[i] for i in sorted(order[most:][: self.limit])]
        else:
            queries = list(self.queries[: self.limit])
        return [self.shots[i] for i in order[:most]], queries

    def run(self, answerer: Answerer, progress: Progress = lambda done, total, what: None) -> Iterator[Result]:
        """Ask everything, one number of shots after the other.

        Args:
            answerer: the candidates to choose from, or a writer.
            progress: called with prompts answered, in all, and what is being done.

        Raises:
            UsageError: a query does not fit the context even without shots; says which.
            TinyformerError: a text cannot be encoded, or the model's output is not finite.
        """
        draws = {k: self._draws(k) for k in self.numbers}
        total = sum(draws.values()) * len(self.draw(0)[1])
        finished = 0
        for k in self.numbers:
            answered: list[Answered] = []
            for number in range(draws[k]):
                shots, queries = self.draw(number)
                fitted = [self.fit(answerer, shots[:k], query) for query in queries]
                found: dict[int, Answered] = {}
                for left_out in sorted({each for _, each in fitted}):  # those that show the same share its keys
                    which = [i for i, (_, each) in enumerate(fitted) if each == left_out]

                    def done(share: float, before: int = finished, count: int = len(which)) -> None:
                        progress(before + int(share * count), total, "answering")

                    answers = answerer.answers([fitted[i][0] for i in which], done)
                    finished += len(which)
                    for i, answer in zip(which, answers):
                        found[i] = Answered(k, number, queries[i], answer, left_out)
                answered += [found[i] for i in range(len(queries))]
            yield Result(k, tuple(answered))

    def fit(self, answerer: Answerer, shots: Sequence[Example], query: Example) -> tuple[Any, int]:
        """A query's prompt, prepared, and how many of the shots were left out for it to fit the context.

        Raises:
            UsageError: it does not fit even without any.
        """
        context = answerer.model.config.context

        def prepared(left_out: int) -> Any:
            prompt = make_prompt(self.template, shots[left_out:], query, self.description)
            return answerer.prepare(prompt, query.place or "a prompt")

        whole = prepared(0)
        if whole.length <= context:
            return whole, 0
        least = bisect.bisect_left(range(len(shots)), True, lo=1, key=lambda n: prepared(n).length <= context)
        shortest = prepared(least) if shots else whole
        if shortest.length > context:
            raise UsageError(
                f"{query.place or 'a query'} makes a prompt of {shortest.length:,} tokens without any shot, the answer "
                f"included, and the model's context is {context:,}; shorten the text"
            )
        return shortest, least

    def _draws(self, k: int) -> int:
        """Without shots, all draws would ask the same, unless what is left is asked."""
        return 1 if k == 0 and self.queries is not None else self.draws


def majority(examples: Sequence[Example]) -> float | None:
    """What always giving the commonest label would reach; None where there are no labels."""
    counts = collections.Counter(example.label for example in examples if example.label is not None)
    return max(counts.values()) / counts.total() if counts else None


def _examples(count: int) -> str:
    return f"{count:,} example{'s' * (count != 1)}"
