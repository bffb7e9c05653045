"""The examples of a fine-tuned run: read from a user's files, kept apart, encoded, and stored so that it can go on.

train.jsonl and validation.jsonl hold one JSON object a line. Their checksums stand in config.toml: a run goes on with
the very examples that it began with, or says that it cannot.

Read before: `tinyformer/tasks/examples.py`. Read next: `finetuning.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import files
from ..errors import TinyformerError, UsageError
from ..tasks import Columns, Example, Row, Task
from ..text.batches import Shuffle
from ..text.spans import Progress
from .config import RunConfig

MOST_BYTES = 1 << 32
_LONGEST = 1 << 24  # bytes of an example
_AT_ONCE = 256  # examples between two calls of `progress`


def read(
    task: type[Task], config: RunConfig, warn: Callable[[str], None]
) -> tuple[Sequence[Example], Sequence[Example]]:
    """The examples to train on and those to validate on, in the order of their files.

    Of those of one file that teach something, at least one is to train on.

    Raises:
        UsageError: a file cannot be used, or leaves nothing for one of the two.
    """
    columns = Columns(config.text, config.pair, config.label)
    found = task.read(config.files[0], columns, warn=warn)
    if isinstance(config.validation, str):
        return found, task.read(config.validation, columns, warn=warn)
    count = max(round(len(found) * config.validation), 1)
    if count >= len(found):
        few = f"{len(found)} example{'s' if len(found) > 1 else ''}"
        end = "a blank line ends a sentence: " if task.name == "tag" else ""
        raise UsageError(
            f"{config.files[0]} has {few}, of which --validation {config.validation:g} leaves none to train on; {end}"
            "give more, or a file of its own with --validation FILE"
        )
    kept = held_out([example.label for example in found], count, config.seed)
    teaching = {number for number, example in enumerate(found) if task.teaches(example)}
    if teaching and teaching <= kept:  # there would be nothing to learn, so one changes places with another
        kept ^= {min(teaching), min(set(range(len(found))) - kept)}
    return (
        [example for number, example in enumerate(found) if number not in kept],
        [example for number, example in enumerate(found) if number in kept],
    )


def held_out(labels: Sequence[Any], count: int, seed: int) -> set[int]:
    """Numbers of the examples to keep for validation: drawn at random, and evenly from those of each label.

    Args:
        labels: of the examples; those that are no texts count as alike.
        count: how many to keep, fewer than there are.
        seed: of the drawing.
    """
    _, order = Shuffle(len(labels), seed).items(0, len(labels))
    kinds = [label if isinstance(label, str) else "" for label in labels]
    if len(set(kinds)) * 2 > len(labels):  # texts to write, which are no kinds
        kinds = [""] * len(labels)
    ordered = sorted(order.tolist(), key=lambda number: kinds[number])  # stable: at random within each
    return {ordered[(2 * i + 1) * len(labels) // (2 * count)] for i in range(count)}


def encode(
    task: Task, examples: Sequence[Example], progress: Progress = lambda done, total, what: None
) -> list[list[Row]]:
    """What the model reads of each example.

    Raises:
        UsageError: one cannot be encoded.
    """
    total = sum(len(text) for example in examples for text in example.texts)
    done, found = 0, []
    for number, example in enumerate(examples):
        if number % _AT_ONCE == 0:
            progress(done, total, "encoding the examples")
        found.append(task.rows(example))
        done += sum(map(len, example.texts))
    progress(total, total, "encoding the examples")
    return found


def write(path: Path, examples: Sequence[Example]) -> str:
    """Store examples durably. Returns the file's checksum.

    Raises:
        WriteError: it could not be written.
    """
    checksum = hashlib.sha256()
    with files.replacing(path) as file:
        for example in examples:
            content = {"texts": example.texts, "label": example.label, "place": example.place, "key": example.key}
            line = (json.dumps(content, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")
            checksum.update(line)
            file.write(line)
    return checksum.hexdigest()


def read_back(path: Path, checksum: str) -> list[Example]:
    """The examples that `write` stored.

    Raises:
        TinyformerError: the file cannot be read, or is not what was stored.
    """
    try:
        content = files.read_file(path, MOST_BYTES)
    except (OSError, ValueError) as error:
        reason = f"cannot read {path}: {files.reason(error)}"
        raise TinyformerError(f"{reason}; the run cannot go on without it: start a new run") from error
    if hashlib.sha256(content).hexdigest() != checksum:
        raise TinyformerError(f"{path} has changed since the run began; put it back as it was, or start a new run")
    lines = content.split(b"\n")[:-1]
    return [_example(json.loads(line.decode("utf-8", "surrogatepass"))) for line in lines]


def texts_of(path: Path) -> int | None:
    """How many texts the first example has that `write` stored; None where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return len(json.loads(file.readline(_LONGEST))["texts"])
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return None


def _example(content: dict[str, Any]) -> Example:
    return Example(_tuples(content["texts"]), _tuples(content["label"]), content["place"], content["key"])


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
