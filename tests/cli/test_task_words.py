"""How what is said of labels and figures looks, whatever labels are called."""

import random

import pytest

from tinyformer.cli.columns import width
from tinyformer.cli.task_words import balance, confusion, figures


@pytest.mark.parametrize("count", [2, 3, 6, 9, 40])
@pytest.mark.parametrize("name", ["label", "a very long name of a label", "标签", "new\nline\x1b[31m"])
@pytest.mark.parametrize(("columns", "filled"), [("60", 60), ("71", 71), ("", 80), ("200", 80)])
def test_labels_fit_the_screen(count, name, columns, filled, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    rng = random.Random(0)
    labels = [f"{i}{name}" for i in range(count)]
    counts = [[rng.randrange(2000) if rng.random() < 0.5 else 0 for _ in labels] for _ in labels]
    for text in (confusion(labels, counts), balance({label: 10 ** (7 - i % 7) for i, label in enumerate(labels)})):
        assert all(width(line) <= filled for line in text.splitlines())
        assert "\x1b" not in text
    assert (count == 40) == ("hardest of 40" in confusion(labels, counts))


def test_a_small_confusion_matrix():
    assert confusion(["no", "yes"], [[21, 3], [0, 0]]).splitlines() == [
        "which label (rows) was taken for which (columns)",
        "                  no    yes     recall",
        "  no              21      3     87.5 %",
        "  yes              0      0          -",
        "  precision  100.0 %  0.0 %",
    ]


def test_figures_are_told_by_name():
    found = {"loss": 1.0, "accuracy": 0.5, "f1": 0.25, "pearson": float("nan"), "bleu": 12.345}
    assert (
        figures(found, {"accuracy": 0.4}) == "accuracy 50.0 % (knowing nothing 40.0 %), F1 25.0 %, BLEU 12.3, Pearson -"
    )
