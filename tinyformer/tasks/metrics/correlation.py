"""Metrics of numbers: the mean squared error, and how well the order of size was met.

The error depends on the unit of the numbers, the correlations do not. GLUE reports both correlations for STS-B (Wang
2019, §3.2). Read before: `scores.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .scores import check_paired


def measure(gold: Sequence[float], predicted: Sequence[float]) -> dict[str, float]:
    """`mse`, `pearson` and `spearman`; the two may be NaN, see there.

    >>> measure([1, 2, 3, 4], [2, 4, 6, 8])
    {'mse': 7.5, 'pearson': 1.0, 'spearman': 1.0}
    """
    return {
        "mse": mean_squared_error(gold, predicted),
        "pearson": pearson(gold, predicted),
        "spearman": spearman(gold, predicted),
    }


def mean_squared_error(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Mean of (predicted - gold)², in the square of the numbers' unit; always saying the mean gets the variance.

    >>> mean_squared_error([3, -0.5, 2, 7], [2.5, 0, 2, 8])
    0.375
    """
    gold, predicted = _numbers(gold, predicted)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.mean((predicted - gold) ** 2))


def pearson(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """How near the pairs lie to a rising line: 1 on it, 0 no line, -1 on a falling one (Pearson 1895).

    Sum of products of the deviations from the means, over the product of their norms. **NaN** where it is not defined:
    either side is the same number throughout (a model that always says the mean), which includes a single pair, or
    some number is not finite.

    >>> round(pearson([1, 2, 3], [1, 3, 2]), 6)
    0.5
    >>> pearson([1, 2, 3], [7, 7, 7])
    nan
    """
    sides = _numbers(gold, predicted)
    if not all(np.isfinite(side).all() and side.min() < side.max() for side in sides):
        return math.nan
    a, b = map(_deviations, sides)
    return float(np.clip(a @ b, -1, 1))


def spearman(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """How well the order was met: Pearson's correlation of the ranks (Spearman 1904).

    Equal numbers share the mean of the ranks that they take up together. **NaN** where Pearson's is.

    >>> spearman([1, 2, 3, 4], [1, 10, 100, 1000])
    1.0
    """
    sides = _numbers(gold, predicted)
    if not all(np.isfinite(side).all() for side in sides):
        return math.nan
    return pearson(*map(ranks, sides))


def ranks(numbers: Sequence[float]) -> np.ndarray:
    """Place of each number in order of size, from 1; equal ones share the mean of their places.

    >>> ranks([20, 10, 20, 30])
    array([2.5, 1. , 2.5, 4. ])
    """
    _, group, sizes = np.unique(numbers, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)  # the places of a group are last - size + 1 ... last
    return (last - (sizes - 1) / 2)[group]


def _numbers(gold: Sequence[float], predicted: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    check_paired(gold, predicted)
    return np.asarray(gold, np.float64), np.asarray(predicted, np.float64)


def _deviations(numbers: np.ndarray) -> np.ndarray:
    """From the mean, with norm 1. The numbers are made small first, so that no sum of them overflows."""
    numbers = numbers / abs(numbers).max()
    centred = numbers - numbers.mean()
    return centred / np.linalg.norm(centred)
