"""Metrics of labels: accuracy, F1 and the confusion matrix.

What is reported follows GLUE (Wang 2019, §3): accuracy; between two classes the F1 of the positive one, as for MRPC and
QQP; among more of them the macro F1, as SuperGLUE does for CB (Wang 2019b, §3). The positive class is the second of the
labels, which stand in the order of the alphabet: "1" beside "0", "pos" beside "neg", "yes" beside "no".

Read before: `scores.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import UsageError
from .scores import Scores, check_paired


def measure(gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """`accuracy`, and `f1` of the positive class where there are two labels, else `macro_f1`.

    >>> measure(["no", "yes", "yes"], ["no", "yes", "no"], labels=("no", "yes"))
    {'accuracy': 0.6666666666666666, 'f1': 0.6666666666666666}
    >>> measure(["a", "b", "c"], ["a", "b", "b"], labels=("a", "b", "c"))
    {'accuracy': 0.6666666666666666, 'macro_f1': 0.5555555555555555}

    Args:
        gold: the true label of each example.
        predicted: the label that was given to it.
        labels: all that the task knows, the positive one second.

    Raises:
        UsageError: nothing to measure, lengths that differ, or a label that the task does not know.
    """
    counts = confusion_matrix(gold, predicted, labels)
    found = {"accuracy": accuracy(gold, predicted)}
    if len(labels) == 2:
        found["f1"] = per_class(counts)[1].f1
    else:
        found["macro_f1"] = macro_f1(counts)
    return found


def accuracy(gold: Sequence, predicted: Sequence) -> float:
    """Share of the examples whose label is right.

    >>> accuracy(["a", "b", "b", "c"], ["a", "b", "c", "c"])
    0.75
    """
    check_paired(gold, predicted)
    return sum(a == b for a, b in zip(gold, predicted)) / len(gold)


def confusion_matrix(gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """How often each label was taken for each: rows are the true labels, columns the given ones, as in scikit-learn.

    >>> confusion_matrix(["cat", "ant", "cat", "cat", "ant"], ["ant", "ant", "cat", "cat", "ant"], ("ant", "cat"))
    array([[2, 0],
           [1, 2]])
    """
    check_paired(gold, predicted)
    places = {label: place for place, label in enumerate(labels)}
    for label in (*gold, *predicted):
        if label not in places:
            raise UsageError(f"the label {label!r} is none of {', '.join(map(repr, labels)) or 'none at all'}")
    counts = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(counts, ([places[label] for label in gold], [places[label] for label in predicted]), 1)
    return counts


def per_class(counts: np.ndarray) -> list[Scores]:
    """Precision, recall and F1 of each label, from the confusion matrix and in its order.

    >>> per_class(np.array([[2, 0], [1, 2]]))[1]
    Scores(precision=1.0, recall=0.6666666666666666, f1=0.8, support=3)
    """
    return [Scores.of(*map(int, row)) for row in zip(counts.diagonal(), counts.sum(axis=0), counts.sum(axis=1))]


def macro_f1(counts: np.ndarray) -> float:
    """Mean F1 of the labels that occur, be it in truth or among the predictions, each weighing the same.

    Labels that do neither say nothing of the model, and are left out, as in scikit-learn.

    >>> macro_f1(np.array([[2, 0, 0], [1, 2, 0], [0, 0, 0]]))
    0.8
    """
    occur = counts.sum(axis=0) + counts.sum(axis=1) > 0
    return float(np.mean([scores.f1 for scores, there in zip(per_class(counts), occur) if there]))
