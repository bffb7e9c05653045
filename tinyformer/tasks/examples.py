"""A user's file of labelled texts, line by line: tab-separated, CSV or JSON lines.

- Tab-separated lines, `text TAB label`, are what any other file is taken for. Quotation marks mean nothing in them, and
  there is no header; but the first line is one where names of columns are given. Where they are those of a run, the
  first line is a header if it has one of them.
- `.csv` always has a header. Fields may be quoted, and then hold commas, line breaks and doubled quotation marks.
- `.jsonl` has a JSON object in each line, and its keys are the columns. So has standard input that begins with `{`.

Blank lines are passed over and counted. An empty text or label is an error, for a field has been lost there.

Read before: `lines.py`. Read next: `task.py`.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .lines import Source, name_of, read_lines

ROLES = ("text", "pair", "label")  # of columns, and their usual names
SHOWN = 20  # columns in a message


@dataclasses.dataclass(frozen=True)
class Example:
    """One line of a user's file, or one sentence or question.

    Attributes:
        texts: one or two; of `tag` the words, of `answer` question and context; none of a blank line.
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
    """Names of columns (of keys, in JSON lines); None for the usual ones: "text", "pair" and "label".

    Attributes:
        fixed: whether nobody can name others, so that no message offers options to do so.
        optional: whether they are a run's, and a tab-separated file may go without a header.
        texts: of an example, 1 or 2, where a run knows that and its task does not.
    """

    text: str | None = None
    pair: str | None = None
    label: str | None = None
    fixed: bool = dataclasses.field(default=False, compare=False)
    optional: bool = dataclasses.field(default=False, compare=False)
    texts: int | None = dataclasses.field(default=None, compare=False)

    @property
    def given(self) -> bool:
        """Whether any name was given, so that a tab-separated file has a header."""
        return (self.text, self.pair, self.label) != (None, None, None)

    def refuse(self, reason: str) -> None:
        """Raise a UsageError if a user has named any, for a file that has none."""
        named = next((role for role in ROLES if getattr(self, role)), None)
        if named and not self.optional:
            raise UsageError(f"--{named} {getattr(self, named)} names a column, and {reason}; leave it out")

    def name(self, role: str) -> str:
        """Of the column with a role."""
        return getattr(self, role) or role

    def beside(self, usual: Columns) -> Columns:
        """These, and in place of those that are not given a run's; without any, a run's as they are."""
        names = {role: getattr(self, role) or getattr(usual, role) for role in ROLES}
        return Columns(**names, fixed=self.fixed, optional=usual.optional and not self.given, texts=usual.texts)


def stream(
    source: Source,
    columns: Columns = Columns(),
    *,
    texts: int | None = 1,
    form: str | None = None,
    labelled: bool = True,
    warn: Callable[[str], None] = lambda message: None,
) -> Iterator[Example]:
    """The examples of a file, whose labels are the texts that stand there.

    Args:
        source: a path, or a file that is open for reading bytes.
        columns: their names, where there are some.
        texts: of an example, 1 or 2; None for either, as `columns` or else the first line has it.
        form: of a line with a label, for messages; default "text TAB label", of two "text TAB text TAB label".
        labelled: whether each must have a label. Else none is read, though there may be a field for it, and a blank
            line is an example without texts, so that there are as many examples as lines.
        warn: told, in a sentence, how many blank lines were passed over.

    Raises:
        UsageError: the file is missing, a directory, empty or not UTF-8; a column is missing; a line has too few or
            too many fields, or an empty one. Says which line, what is there and what is expected.
    """
    texts = columns.texts if texts is None else texts
    if texts == 1 and columns.pair is not None:
        raise UsageError(f"--pair {columns.pair} names a second text, and here it is one; leave it out")
    name, blank, count = name_of(source), 0, 0
    wanted = _Wanted(columns, texts, labelled, form)
    for number, values in _records(source, name, wanted):
        place = f"{name}, line {number}"
        if values is None:
            blank += 1
            if not labelled:
                yield Example((), None, place)
            continue
        for role, value in values.items():
            if value is not None and not value.strip():
                raise UsageError(f"{place} has an empty {wanted.called(role)}; fill it in, or remove the line")
        if labelled and values.get("label") is None:
            raise UsageError(f"{place} has no {wanted.called('label')}; give it one, or remove the line")
        count += 1
        pair = () if values.get("pair") is None else (values["pair"],)
        yield Example((values["text"], *pair), values.get("label"), place)
    if not count and (labelled or not blank):
        if not blank:
            raise UsageError(f"{name} has no example, only a header; add lines below it")
        raise UsageError(f"{name} has no example, only {blank:,} blank line{'s' * (blank > 1)}; add {wanted.form}")
    if blank and labelled:
        warn(f"{name}: {blank:,} blank {'line was' if blank == 1 else 'lines were'} passed over")


def count_labels(examples: Sequence[Example]) -> dict[str, int]:
    """How many examples there are of each label, the most common first."""
    return dict(collections.Counter(example.label for example in examples).most_common())


_Values = dict[str, str | None]  # of a line, by role; a column that need not be there is None


@dataclasses.dataclass
class _Wanted:
    """The columns that are asked for. `texts` is settled by the first line where it is None."""

    columns: Columns
    texts: int | None
    labelled: bool
    line: str | None = None

    @property
    def form(self) -> str:
        """What a line is expected to be."""
        pair = {1: "", 2: " TAB text", None: " [TAB text]"}[self.texts]
        return (self.line or f"text{pair} TAB label") if self.labelled else f"text{pair}"

    def called(self, role: str) -> str:
        """What a message calls a role: by the form of a line, such as "source TAB target"."""
        first, *_, last = (self.line or "text TAB label").split(" TAB ")
        return {"text": first, "label": last}.get(role, role)

    def settle(self, known: Sequence[str]) -> None:
        """Decide by the columns of a header whether there are two texts."""
        if self.texts is None:
            self.texts = 2 if self.columns.pair is not None or "pair" in known else 1

    def required(self, role: str) -> bool:
        """Whether a column must be there."""
        return {"text": True, "pair": self.texts == 2, "label": self.labelled}[role]

    def is_header(self, fields: Sequence[str]) -> bool:
        """Whether a line has the names of all columns that are asked for; one alone tells only if it was given."""
        asked = {self.columns.name(role) for role in filter(self.required, ROLES)}
        return asked <= {field.strip() for field in fields} and (len(fields) > 1 or self.columns.given)

    def choose(self, place: str, found: dict[str, Any], kind: str) -> dict[str, Any]:
        """The values of a line with named columns, by role.

        Raises:
            UsageError: a column is missing; says which there are.
        """
        chosen = {}
        for role in filter(self.required, ROLES):
            column = self.columns.name(role)
            if column in found:
                chosen[role] = found[column]
            else:
                there = ", ".join(list(found)[:SHOWN]) + (", ..." if len(found) > SHOWN else "")
                called = self.called(role)
                hint = f"rename the {called}'s" if self.columns.fixed else f"name the {called}'s with --{role}"
                raise UsageError(f"{place} has no {kind} {column!r} (there are: {there or 'none'}); {hint}")
        return chosen


def _records(source: Source, name: str, wanted: _Wanted) -> Iterator[tuple[int, _Values | None]]:
    """Each record's number and values by role; None in place of them for a blank line."""
    lines = read_lines(source)
    first = next(lines)
    lines, suffix = chain([first], lines), Path(name).suffix.lower()
    if suffix == ".csv":
        return _with_header(_quoted(lines, name), name, wanted)
    if suffix == ".json" and first[1].lstrip()[:1] in ("[", "{"):
        raise UsageError(f"{name} is JSON, which is read by lines; save it as .jsonl, with an object on each line")
    if suffix == ".jsonl" or (not isinstance(source, (str, Path)) and first[1].lstrip().startswith("{")):
        return _objects(lines, name, wanted)
    rows = _tabs(lines)
    if wanted.columns.given or wanted.columns.optional:
        ahead = list(_until_filled(rows))
        rows = chain(ahead, rows)
        if not wanted.columns.optional or wanted.is_header(ahead[-1][1]):
            return _with_header(rows, name, wanted)
    return _without_header(rows, name, wanted)


def _until_filled(rows: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    """Rows up to the first that is not blank."""
    for row in rows:
        yield row
        if row[1]:
            return


def _tabs(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
    for number, line in lines:
        yield number, line.rstrip("\r\n").split("\t") if line.strip() else []


def _quoted(lines: Iterator[tuple[int, str]], name: str) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV file, each with the number of its first line."""
    last = 0

    def texts() -> Iterator[str]:
        nonlocal last
        for number, line in lines:
            last = number
            yield line

    reader = csv.reader(texts(), strict=True)
    while True:
        first = last + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UsageError(
                f"{name}, line {first} is not as CSV should be ({error}); close its quotation marks, and double those "
                "that belong to the text"
            ) from None
        yield first, fields if "".join(fields).strip() or len(fields) > 1 else []


def _with_header(
    rows: Iterator[tuple[int, list[str]]], name: str, wanted: _Wanted
) -> Iterator[tuple[int, _Values | None]]:
    number, header = next((row for row in rows if row[1]), (1, []))
    header = [column.strip() for column in header]
    wanted.settle(header)
    wanted.choose(f"{name}, line {number}", dict.fromkeys(header), "column")
    for column in filter(None, map(wanted.columns.name, ROLES)):
        if header.count(column) > 1:
            raise UsageError(f"{name} has {header.count(column)} columns {column!r}; rename all but one")
    for number, fields in rows:
        if fields and len(fields) != len(header):
            there = f"{len(fields)} column{'s' * (len(fields) > 1)}"
            raise UsageError(
                f"{name}, line {number} has {there}, and the header {len(header)}; each line needs as many as that"
            )
        yield number, wanted.choose("", dict(zip(header, fields)), "column") if fields else None


def _without_header(
    rows: Iterator[tuple[int, list[str]]], name: str, wanted: _Wanted
) -> Iterator[tuple[int, _Values | None]]:
    for number, fields in rows:
        if not fields:
            yield number, None
            continue
        if wanted.texts is None:
            pair = len(fields) > 2 or (len(fields) == 2 and not wanted.labelled and not _is_number(fields[1]))
            wanted.texts = 2 if pair else 1
        if len(fields) != wanted.texts + 1 and (wanted.labelled or len(fields) != wanted.texts):
            options = ", ".join(f"--{role}" for role in ROLES if wanted.required(role))
            hint = "" if wanted.columns.fixed else f" (of a file with a header, name the columns: {options})"
            raise UsageError(f"{name}, line {number} has {_fields(len(fields))}; each line is {wanted.form}{hint}")
        texts, label = fields[: wanted.texts], fields[wanted.texts :]
        yield number, {**dict(zip(ROLES, texts)), "label": label[0] if wanted.labelled else None}


def _objects(lines: Iterator[tuple[int, str]], name: str, wanted: _Wanted) -> Iterator[tuple[int, _Values | None]]:
    for number, line in lines:
        if not line.strip():
            yield number, None
            continue
        place = f"{name}, line {number}"
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            raise UsageError(f'{place} is no JSON; each line is one object, such as {{"text": ...}}') from None
        if not isinstance(found, dict):
            raise UsageError(f'{place} is no JSON object; each line is one, such as {{"text": ...}}')
        wanted.settle(list(found))
        values = wanted.choose(place, found, "key")
        yield number, {role: _as_text(place, wanted.columns.name(role), role, values[role]) for role in values}


def _as_text(place: str, key: str, role: str, value: Any) -> str | None:
    """A value of a JSON object as text; a label may also be a number, a truth value or null."""
    if isinstance(value, str):
        return value
    if role == "label" and value is None:
        return None
    if role == "label" and isinstance(value, (bool, int, float)):
        return json.dumps(value)
    raise UsageError(f"{place}: {key!r} must be a text{' or a number' * (role == 'label')}, and is {_short(value)}")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."


def _fields(count: int) -> str:
    return "no tab" if count == 1 else f"{count} fields"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
