"""A user's file of labelled texts, line by line: tab-separated, CSV or JSON lines.

- Tab-separated without a header is the default: `text TAB label`. Quotation marks mean nothing there.
- With names of columns given, its first line is a header.
- `.csv` has a header always, and fields may be quoted, with line breaks and commas in them.
- `.jsonl` is one JSON object a line, and the columns are its keys.

Read next: `task.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any


@dataclasses.dataclass(frozen=True)
class Example:
    """One line of a user's file, or one sentence or question.

    Attributes:
        texts: one or two; of `tag` the words, of `answer` question and context.
        label: of classify and pair a str; of regress a float; of tag a tuple of str, one for each word; of answer a
            tuple of (text, start character), empty for no answer; of text2text a str; None where it is not known.
        place: "FILE, line 12", for messages.
        key: of answer, the question's id.
    """

    texts: tuple[str, ...]
    label: Any = None
    place: str = ""
    key: str = ""


@dataclasses.dataclass(frozen=True)
class Columns:
    """Names of columns (of keys, in JSON lines); None for the usual ones: "text", "pair" and "label"."""

    text: str | None = None
    pair: str | None = None
    label: str | None = None

    @property
    def given(self) -> bool:
        """Whether any name was given, so that a tab-separated file has a header."""
        return (self.text, self.pair, self.label) != (None, None, None)


def stream(
    source: Path | str | IO[bytes],
    columns: Columns = Columns(),
    *,
    texts: int | None = 1,
    labelled: bool = True,
    warn: Callable[[str], None] = lambda message: None,
) -> Iterator[Example]:
    """The examples of a file, whose labels are the texts that stand there.

    Args:
        source: a path, or an open file.
        columns: their names, where there are some.
        texts: of an example, 1 or 2; None for either, the first line decides.
        labelled: whether each must have a label.
        warn: told, in a sentence, how many empty lines were passed over.

    Raises:
        UsageError: the file is missing, a directory, empty or not UTF-8; a column is missing; a line has too few or
            too many fields, or an empty one. Says which line, what is there and what is expected.
    """
    raise NotImplementedError


def count_labels(examples: Sequence[Example]) -> dict[str, int]:
    """How many examples there are of each label, the most common first."""
    raise NotImplementedError
