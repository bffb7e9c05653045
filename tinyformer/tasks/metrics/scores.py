"""Precision, recall and F1, which labels and entities share.

Read next: `classification.py`, `entities.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from ...errors import UsageError


@dataclass(frozen=True)
class Scores:
    """How well one kind of thing was found (van Rijsbergen 1979, ch. 7).

    Attributes:
        precision: share of those found that are right.
        recall: share of those there that were found.
        f1: harmonic mean of the two.
        support: how many are there.
    """

    precision: float
    recall: float
    f1: float
    support: int

    @classmethod
    def of(cls, right: int, found: int, there: int) -> Self:
        """From counts. A rate of nothing is 0.

        2 / (1/p + 1/r) with p = right/found and r = right/there is 2 right / (found + there).

        >>> Scores.of(right=371, found=539, there=459)  # the example that CoNLL-2000 gives for conlleval
        Scores(precision=0.6883116883116883, recall=0.8082788671023965, f1=0.7434869739478958, support=459)
        """
        f1 = _rate(2 * right, found + there)
        return cls(_rate(right, found), _rate(right, there), f1, int(there))


def _rate(part: int, whole: int) -> float:
    return float(part / whole) if whole else 0.0


def check_paired(gold: Sequence, predicted: Sequence, things: str = "examples") -> None:
    """Refuse to measure nothing, or answers that belong to other questions.

    Raises:
        UsageError: the two differ in length, or are empty.
    """
    if len(gold) != len(predicted):
        raise UsageError(
            f"there are {len(gold):,} {things} and {len(predicted):,} predictions; a metric needs one for each"
        )
    if not len(gold):
        raise UsageError(f"there are no {things}, so there is nothing to measure; give at least one")
