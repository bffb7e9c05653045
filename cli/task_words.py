"""How fine-tuning looks: examples and labels first, figures after each epoch, and which label was taken for which.

What tells of labels fits the screen from 60 columns on, and 80 on any other, whatever they are called and however many
there are. `view.py` shows what is said here.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from .columns import clipped, one_line, padded, width
from .figures import counted, duration, model_size, number, percent, printable, quantity

Event = Mapping[str, Any]
_NARROWEST, _WIDEST = 60, 80  # columns
_LABEL = 20  # columns of a label before a row; its other names are as wide as they have to be
_HEADING = 12  # and over a column
_RATE = 9  # columns of a rate
_FEW = 5  # labels whose balance is told one by one, if there are more
_DETAILS = ("precision", "recall", "spearman")  # that are not compared with
_HARD = 10  # labels and mistakes that are told of, where there are too many for a square
FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {  # of the metrics, in words
    "accuracy": ("accuracy", percent),
    "f1": ("F1", percent),
    "macro_f1": ("macro F1", percent),
    "precision": ("precision", percent),
    "recall": ("recall", percent),
    "exact_match": ("exact match", percent),
    "rouge_l": ("ROUGE-L", percent),
    "bleu": ("BLEU", lambda value: f"{value:.1f}"),
    "mse": ("squared error", lambda value: f"{value:.4g}"),
    "pearson": ("Pearson", lambda value: f"{value:.3f}"),
    "spearman": ("Spearman", lambda value: f"{value:.3f}"),
}


def figures(found: Event, baseline: Event = MappingProxyType({})) -> str:
    """Metrics with their names, and beside the accuracy that of knowing nothing."""
    return ", ".join(_figures(found, baseline))


def _figures(found: Event, baseline: Event) -> list[str]:
    said = []
    for name, (words, form) in FIGURES.items():
        if (value := found.get(name)) is not None:
            beside = f" (knowing nothing {form(baseline[name])})" if name == "accuracy" and name in baseline else ""
            said.append(f"{words} {form(value) if math.isfinite(value) else '-'}{beside}")
    return said


def screen() -> int:
    """Columns to fill."""
    return max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size().columns))


def label(text: str, columns: int) -> str:
    """A label on one line, cut to some columns."""
    return clipped(one_line(printable(text)), columns, "...")


def balance(counts: Mapping[str, int], what: str = "", more: str = "") -> str:
    """How common each label is; of many, the commonest and the rarest.

    Args:
        counts: examples of each, the commonest first.
        what: how many there are, in words; else they are labels.
        more: a remark behind them.
    """
    total, names = sum(counts.values()), list(counts)
    shown = names if len(names) <= _FEW + 1 else names[: _FEW - 1]
    parts = [f"{label(name, _LABEL)} {percent(counts[name] / total)}" for name in shown]
    if len(shown) < len(names):
        rarest = names[-1]
        parts.append(f"... {label(rarest, _LABEL)} {percent(counts[rarest] / total)} ({counts[rarest]:,})")
    return listed(what or counted(len(names), "label"), parts, more)


def listed(what: str, parts: Sequence[str], more: str = "") -> str:
    """Some things behind what they are, and a remark if there is one, on as many lines as that takes."""
    ends = ["," for _ in parts[1:]] + [";" if more else ""]
    lines, line = [], f"{what}: "
    for part in [f"{part}{end}" for part, end in zip(parts, ends)] + [more] * bool(more):
        if width(line) + width(part) > screen() and line.strip():
            lines.append(line.rstrip())
            line = "  "
        line += part + " "
    return "\n".join([*lines, line.rstrip()])


def _epochs(count: float) -> str:
    """How many epochs, or which one, to two digits behind the point."""
    return f"{count:,.2f}".rstrip("0").removesuffix(".")


def _start(event: Event) -> str:
    onwards = f", from step {event['step']}" if event["step"] else ""
    return "\n".join([f"fine-tuning {event['run']}{onwards}: {model_size(event)}", *_examples(event)])


def _examples(event: Event) -> list[str]:
    count, kept = event["examples"], event["validation_examples"]
    rows = f" ({event['rows']:,} rows)" if event["rows"] != count else ""
    count_of_epochs = event["steps"] / event["epoch_steps"]  # more than were asked for at first, if a run goes on
    epochs = (
        f"{_epochs(count_of_epochs)} epoch{'s' * (count_of_epochs != 1)} of {counted(event['epoch_steps'], 'step')}"
    )
    said = [f"examples: {count:,} to train on{rows}, {kept:,} to validate on; {epochs}"]
    if told := _labels(event["task"], event["balance"], event["summary"]):
        said.append(told)
    if event["baseline"]:
        *parts, last = _figures({name: event["baseline"].get(name) for name in FIGURES if name not in _DETAILS}, {})
        said.append(listed("to compare with", [*parts, f"{last} by always saying {label(event['guess'], _LABEL)}"]))
    for what, rows, cut in (("", event["rows"], event["cut"]), (" to validate on", kept, event["validation_cut"])):
        if cut:
            were, context = "was" if cut == 1 else "were", event["model"]["context"]
            said.append(f"{cut:,} of {rows:,} rows{what} {were} cut to the context of {context:,} tokens")
    return said


def _labels(task: str, counts: Mapping[str, int], summary: Mapping[str, float]) -> str:
    """What there is to tell of the labels to train on; empty where a task has none."""
    if task == "regress":
        middle = [f"mean {summary['mean']:.4g}", f"deviation {summary['deviation']:.4g}"]
        return listed("numbers", [*middle, f"from {summary['least']:.4g} to {summary['most']:.4g}"])
    if task == "answer":
        without = f"{percent(summary['without'] / summary['questions'])} of the questions have none"
        without = without if summary["without"] else "every question to train on has one"
        return listed("answers", [f"{counted(round(summary['median']), 'character')} in the median"], without)
    if task == "tag":
        outside = percent(summary["outside"] / summary["words"])
        return balance(counts, f"{counted(len(counts), 'type')} of entity", f"{outside} of the words are O")
    return balance(counts) if counts else ""


def _dry_run(event: Event) -> str:
    memory = sum(event["memory_per_step"].values())
    cost = f"a step: {quantity(event['flops_per_step'], 'FLOP')}, {quantity(memory, 'B')} of memory in all (estimated)"
    return "\n".join([f"dry run: {model_size(event)}", *_examples(event), cost])


def _validation(event: Event) -> str:
    found = figures(event, event["baseline"])
    return f"step {event['step']}  epoch {_epochs(event['epoch'])}  validation loss {number(event['loss'])}  {found}"


def _end(event: Event) -> str:
    if event["run"] is None:
        return f"one step took {event['seconds']:.2f} s; nothing was written"
    best = event["best"]
    done = [f"done: step {event['step']}, in {duration(event['seconds'])}"]
    if best:
        done.append(f"best after epoch {_epochs(best['epoch'])} (step {best['step']}), kept: {figures(best)}")
    if "confusion" in event["report"]:
        done.append(confusion(event["report"]["labels"], event["report"]["confusion"]))
    return "\n".join([*done, f"next: {event['next']}"])


def confusion(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Which label was taken for which, as a square; of too many labels, the hardest ones and the commonest mistakes."""
    true = [sum(row) for row in counts]
    given = [sum(column) for column in zip(*counts)]
    recall = [_rate(counts[i][i], true[i]) for i in range(len(labels))]
    precision = [_rate(counts[i][i], given[i]) for i in range(len(labels))]
    first = max(width(label(name, _LABEL)) for name in (*labels, "precision"))
    columns = [
        max(width(label(name, _HEADING)), len(f"{max(column):,}"), len(rate))
        for name, column, rate in zip(labels, zip(*counts), precision)
    ]
    if 2 + first + sum(columns) + 2 * len(columns) + 2 + _RATE > screen():
        return _hardest(labels, counts, recall, precision, true)
    heading = [_right(label(name, _HEADING), size) for name, size in zip(labels, columns)]
    lines = ["which label (rows) was taken for which (columns)", _row("", first, [*heading, _right("recall", _RATE)])]
    for i, name in enumerate(labels):
        cells = [_right(f"{count:,}", size) for count, size in zip(counts[i], columns)]
        lines.append(_row(label(name, _LABEL), first, [*cells, _right(recall[i], _RATE)]))
    lines.append(_row("precision", first, [_right(rate, size) for rate, size in zip(precision, columns)]))
    return "\n".join(lines)


def _hardest(
    labels: Sequence[str],
    counts: Sequence[Sequence[int]],
    recall: Sequence[str],
    precision: Sequence[str],
    true: Sequence[int],
) -> str:
    there = [i for i in range(len(labels)) if true[i]]
    order = sorted(there, key=lambda i: (counts[i][i] / true[i], -true[i]))[:_HARD]
    first = max(width(label(labels[i], _LABEL)) for i in order)
    names = ("recall", "precision", "examples")
    some = f"the {len(order)} hardest of {len(labels)} labels"
    lines = [
        some if len(order) < len(labels) else "labels, the hardest first",
        _row("", first, [_right(name, _RATE) for name in names]),
    ]
    for i in order:
        cells = [recall[i], precision[i], f"{true[i]:,}"]
        lines.append(_row(label(labels[i], _LABEL), first, [_right(cell, _RATE) for cell in cells]))
    wrong = [(count, i, j) for i, row in enumerate(counts) for j, count in enumerate(row) if i != j and count]
    worst = sorted(wrong, key=lambda found: (-found[0], found[1:]))[: _HARD // 2]
    if worst:
        lines.append("the commonest mistakes")
        room = min(_LABEL, (screen() - len(f"   was taken for : {worst[0][0]:,}")) // 2)
    for count, i, j in worst:
        lines.append(f"  {label(labels[i], room)} was taken for {label(labels[j], room)}: {count:,}")
    return "\n".join(lines)


def _rate(part: int, whole: int) -> str:
    return percent(part / whole) if whole else "-"


def _right(text: str, columns: int) -> str:
    return " " * (columns - width(text)) + text


def _row(name: str, first: int, cells: Sequence[str]) -> str:
    return f"  {padded(name, first)}  {'  '.join(cells)}".rstrip()


WORDS: dict[str, Callable[[Any], str]] = {
    "start": _start,
    "dry_run": _dry_run,
    "validation": _validation,
    "end": _end,
}
