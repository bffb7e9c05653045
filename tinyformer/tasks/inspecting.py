"""What a fine-tuned model sees of an example: its tokens, where its head answers, and what was cut.

Read before: `tinyformer/analysis/inspection.py`, which shows what a pretraining objective makes of a text; `task.py`.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.drawing import draw, written
from ..analysis.inspection import Inspection, attention, tokens_of
from ..errors import UsageError
from .examples import Columns, Example
from .predicting import read_examples
from .task import Row, Task

UNKNOWN, NOTHING = "?", "none"


def inspect(task: Task, example: Example) -> Inspection:
    """Make a row of an example, as training does, and show all that a model gets of it.

    Of several rows, such as windows of a long text, it is the first with an answer, or else the first.

    Args:
        task: of the run.
        example: with a label or without.

    Raises:
        UsageError: it cannot be encoded, or its label is unknown.
        TinyformerError: the tokenizer cannot represent it.
    """
    tokenizer, found = task.tokenizer, task.rows(example)
    told = [_told(task, example, row) for row in found]
    number = next((i for i, labels in enumerate(told) if any(set(labels) - {"", UNKNOWN, NOTHING, "O"})), 0)
    row, labels = found[number], told[number]
    batch = task.corrupt([row], [None])
    inputs, weights, names = batch.inputs[0], batch.weights, {i: name for name, i in tokenizer.special_tokens.items()}
    writes = batch.decoder_inputs is not None
    if writes:
        drawn = draw("seq2seq", tokenizer, batch)[0]
    else:
        said = " ".join(filter(None, labels))
        if task.name == "answer" and example.label is not None:
            said = example.label[0][0] if example.label else NOTHING
        drawn = {"input": written(tokenizer, inputs, names), "label": said}
    return Inspection(
        mode=task.mode,
        objective=task.name,
        vocabulary=tokenizer.vocabulary_size,
        texts=tuple(tokens_of(tokenizer, tokenizer.encode(text)) for text in _texts(task, example)),
        left_out=row.cut,
        inputs=tokens_of(tokenizer, inputs),
        decoder_inputs=tokens_of(tokenizer, batch.decoder_inputs[0]) if writes else None,
        targets=tokens_of(tokenizer, batch.targets[0] if writes else inputs[:0]),
        weights=tuple((np.ones(batch.targets.shape[1]) if weights is None else weights[0]).tolist()) if writes else (),
        documents=None,
        positions=None,
        segments=None if batch.segments is None else tuple(batch.segments[0].tolist()),
        label=None,
        drawn=drawn,
        sentinels={},
        attention=attention(task.mode, batch),
        labels=None if writes else tuple(labels),
        names=_names(task, example),
        rows=len(found),
        row=number,
    )


def find(task: type[Task], source: Path | bytes, columns: Columns, line: int | None) -> Example | None:
    """An example of a file or of a text, with its label if it has one.

    Args:
        task: of which it is.
        source: a file's path, or the text itself.
        columns: those that the run was fine-tuned with; nobody can name others.
        line: of the file, where it stands or after which it is the first; None for the first of all. What is not made
            of lines, such as SQuAD's JSON, is counted by examples.

    Returns:
        None where there is none.

    Raises:
        UsageError: as for `Task.stream`.
    """
    none = Columns(fixed=True, texts=columns.texts)
    is_file = isinstance(source, Path)
    with contextlib.suppress(UsageError):
        return _nth(task.stream(source if is_file else _Text(source), none.beside(columns) if is_file else none), line)
    return _nth(read_examples(task, source if is_file else _Text(source), none, usual=columns), line)


class _Text(io.BytesIO):
    """A text as a file, with a name for messages."""

    name = "the text"


def _nth(examples: Iterator[Example], line: int | None) -> Example | None:
    for number, example in enumerate(examples, 1):
        words = example.place.rpartition(", line ")[2]
        if line is None or (int(words) if words.isdecimal() else number) >= line:
            return example
    return None


def _texts(task: Task, example: Example) -> list[str]:
    if task.name == "tag":
        return [" ".join(example.texts)]
    return [*example.texts, *([example.label] if task.name == "text2text" and example.label else [])]


def _names(task: Task, example: Example) -> tuple[str, ...]:
    if task.name == "answer":
        return "question", "context"
    if task.name == "text2text":
        return "source", "target"
    return ("sentence",) if task.name == "tag" else ("text",) if len(example.texts) == 1 else ("text", "another")


def _told(task: Task, example: Example, row: Row) -> list[str]:
    """What the head should say at each place of a row; empty where it is not asked."""
    said = [""] * len(row.ids)
    if task.name == "tag":
        words, places = row.origin
        for word, place in zip(words.tolist(), places.tolist()):
            said[place] = UNKNOWN if example.label is None else example.label[word]
    elif task.name == "answer":
        for name, place in zip(("start", "end"), row.target or ()):
            if place:
                said[place] = f"{said[place]}-{name}" if said[place] else name
        if not any(said):
            said[0] = UNKNOWN if row.target is None else NOTHING
    else:
        place = 0 if task.mode == "encoder" else len(row.ids) - 1
        said[place] = UNKNOWN if example.label is None else _text(example.label)
    return said


def _text(label: Any) -> str:
    return f"{label:g}" if isinstance(label, float) else str(label)
