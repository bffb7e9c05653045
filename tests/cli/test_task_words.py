"""How what is said of labels and figures looks, whatever labels are called."""

import random

import pytest

from tinyformer.cli.columns import width
from tinyformer.cli.task_words import WORDS, balance, confusion, figures

START = {
    "run": "r", "step": 0, "steps": 9, "epoch_steps": 3, "objective": "task", "parameters": 10, "baseline": {},
    "model": {"mode": "encoder", "layers": 1, "heads": 1, "width": 8, "context": 8},
    "examples": 20, "rows": 20, "cut": 0, "validation_examples": 5, "validation_cut": 0,
}  # fmt: skip
screens = pytest.mark.parametrize(("columns", "filled"), [("40", 60), ("60", 60), ("71", 71), ("", 80), ("200", 80)])


@pytest.mark.parametrize("count", [2, 3, 6, 9, 40])
@pytest.mark.parametrize("name", ["label", "a very long name of a label", "标签", "new\nline\x1b[31m"])
@screens
def test_labels_fit_the_screen(count, name, columns, filled, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    rng = random.Random(0)
    labels = [f"{i}{name}" for i in range(count)]
    counts = [[rng.randrange(2000) if rng.random() < 0.5 else 0 for _ in labels] for _ in labels]
    common = {label: 10 ** (7 - i % 7) for i, label in enumerate(labels)}
    for text in (
        confusion(labels, counts),
        balance(common),
        balance(common, f"{count} types of entity", "and a remark"),
    ):
        assert all(width(line) <= filled for line in text.splitlines())
        assert "\x1b" not in text
    assert (count == 40) == ("hardest of 40" in confusion(labels, counts))


@screens
@pytest.mark.parametrize(
    ("task", "counts", "summary"),
    [
        ("tag", {f"{i} the type of an entity": 12 - i for i in range(12)}, {"words": 1000, "outside": 900}),
        ("tag", {"PER": 30}, {"words": 100, "outside": 0}),
        ("answer", {}, {"questions": 1000, "without": 999, "median": 1234}),
        ("answer", {}, {"questions": 1000, "without": 0, "median": 1}),
        ("regress", {}, {"mean": -1.234e100, "deviation": 1.234e100, "least": -1.234e100, "most": -1.234e100}),
    ],
)
def test_what_is_told_of_the_labels_fits_the_screen(task, counts, summary, columns, filled, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    _, _, *told = WORDS["start"](START | {"task": task, "balance": counts, "summary": summary}).splitlines()
    assert all(width(line) <= filled for line in told)


def test_a_remark_stands_behind_the_labels():
    assert balance({"a": 3, "b": 1}, more="the end") == "2 labels: a 75.0 %, b 25.0 %; the end"
    assert balance({"a": 3}, "1 type", "the end") == "1 type: a 100.0 %; the end"
    assert balance({}, "0 types", "the end") == "0 types: the end"


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
