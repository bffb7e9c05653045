"""Files of tagged words: CoNLL's columns, or JSON lines.

    EU NNP B-ORG        a word first, its tag last, spaces or tabs between; what stands between them is not read
    rejects VBZ O
                        a blank line ends a sentence; lines that begin with -DOCSTART- are passed over

As JSON lines: {"words": ["EU", "rejects"], "tags": ["B-ORG", "O"]}.

Tags are BIO (also called IOB2): an entity of TYPE begins with B-TYPE and goes on with I-TYPE, and O is everything else.
Without tags, as for `predict`, a file may have the words alone, one a line; or a sentence on each line, its words
between spaces. It is taken for that unless its first two lines, or the first if a blank one follows, are a single word
or end in a tag ("vitamin B" might); blank lines are sentences without words then, so that there are as many examples as
lines.

Read before: `examples.py`. Read next: `tag.py`.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import UsageError
from .examples import Columns, Example
from .lines import Source, name_of, read_lines
from .metrics import entities

DOCUMENT = "-DOCSTART-"
FORM = "a line is WORD TAG with spaces or tabs between, and a blank line ends a sentence"
UNTAGGED = "a line is a sentence, or a word, with blank lines between sentences"


def stream_tagged(
    source: Source,
    columns: Columns = Columns(),
    *,
    labelled: bool = True,
    warn: Callable[[str], None] = lambda message: None,
) -> Iterator[Example]:
    """The sentences of a file: their words, and as labels their tags; see `Task.stream`.

    Args:
        source: a path, or an open file.
        columns: of JSON lines, the keys of words and tags, if not "words" and "tags".
        labelled: whether each word must have a tag; without, none is read.
        warn: told, in a sentence, of words that are not read where the file was taken for one with a word on each line;
            not of blank lines, which mean something here.

    Raises:
        UsageError: the file cannot be read, a word has no tag, or tags are not BIO.
    """
    name, lines = name_of(source), read_lines(source)
    ahead, first = [], ""
    for number, line in lines:
        first = "" if _skipped(line) else line
        if first or not line.strip():
            ahead.append((number, line))
        if first:
            break
    if not first and (labelled or not ahead):
        raise UsageError(f"{name} has no sentence in it; {FORM if labelled else UNTAGGED}")
    sentences, lines = (not first, lines) if labelled or not first else _are_sentences(first, lines)
    lines = itertools.chain(ahead, lines)
    lines_of_json = name.lower().endswith(".jsonl") or first.lstrip().startswith('{"')
    if lines_of_json:
        read = (
            _from_json(line, columns, labelled, f"{name}, line {number}") if line.strip() else Example((), None)
            for number, line in lines
            if line.strip() or not labelled
        )
    elif sentences:
        read = (Example(tuple(_fields(line)), None, f"{name}, line {number}") for number, line in lines)
    else:
        read = _from_columns(lines, labelled, name, warn)
    if not lines_of_json:
        columns.refuse(f"{name} has words, and tags behind them")
    for example in read:
        if example.label is not None:
            check_tags(example, one_line=lines_of_json)
        yield example


def check_tags(example: Example, *, one_line: bool = False) -> None:
    """Raise a UsageError unless the tags of a sentence are BIO.

    Args:
        example: with tags; its place is that of its first word.
        one_line: whether the other words stand there, too, and not each a line later.
    """
    fault = entities.bio_fault(example.label)
    if fault is not None:
        number, what = fault
        place = example.place if one_line else later(example.place, number)
        raise UsageError(
            f"{place}, at the word {example.texts[number]!r}: {what}; {_way_to_bio(example.label[number])}"
        )


def _way_to_bio(tag: str) -> str:
    """What to do about a tag that is not BIO: from which scheme it seems to be, and how that is written as BIO."""
    for scheme, single, last in (("BIOES", "S", "E"), ("BILOU", "U", "L")):
        if tag[:2] in (f"{single}-", f"{last}-"):  # a letter alone may be the name of a type
            return f"this looks like {scheme}: write B- for {single}- and I- for {last}-, in the whole file"
    if tag[:2] in ("I", "I-"):
        return "this looks like IOB1: write B- for the I- with which an entity begins, in the whole file"
    return "correct or convert the file"


def later(place: str, lines: int) -> str:
    """ "FILE, line 12" some lines later."""
    start, _, number = place.rpartition(" ")
    return f"{start} {int(number) + lines}" if lines and number.isdecimal() else place


def _skipped(line: str) -> bool:
    return not line.strip() or line.startswith(DOCUMENT)


def _fields(line: str) -> list[str]:
    return [field for field in re.split(r"[ \t\r\n]+", line) if field]


def _are_sentences(first: str, lines: Iterator[tuple[int, str]]) -> tuple[bool, Iterator[tuple[int, str]]]:
    """Whether lines hold a sentence each, and those behind the first; the second is looked at if the first is none."""
    if _is_sentence(first):
        return True, lines
    ahead = list(itertools.islice(lines, 1))
    return any(_is_sentence(line) for _, line in ahead), itertools.chain(ahead, lines)


def _is_sentence(line: str) -> bool:
    """Whether there is more than one word, and the last is no tag."""
    *words, tag = _fields(line) or [""]
    return bool(words) and entities.bio_fault([tag.replace("I", "B", 1)]) is not None


def _from_columns(
    lines: Iterator[tuple[int, str]], labelled: bool, name: str, warn: Callable[[str], None]
) -> Iterator[Example]:
    words: list[str] = []
    tags: list[str] = []
    start, warned = 0, labelled
    for number, line in itertools.chain(lines, [(0, "")]):
        if not _skipped(line):
            fields = _fields(line)
            if labelled and len(fields) < 2:
                raise UsageError(f"{name}, line {number}: the word {fields[0]!r} has no tag; {FORM}")
            if not warned and _is_sentence(line):
                warn(
                    f"{name} begins with a word on each line: of line {number}, and of all others, only the first word "
                    "is read; if it has sentences, begin with one of several words"
                )
                warned = True
            start = start if words else number
            words.append(fields[0])
            tags.append(fields[-1])
        elif words:
            yield Example(tuple(words), tuple(tags) if labelled else None, f"{name}, line {start}")
            words, tags = [], []


def _from_json(line: str, columns: Columns, labelled: bool, place: str) -> Example:
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place}: this is no JSON ({error})") from None
    keys = (columns.text or "words", columns.label or "tags")
    asked = keys if labelled else keys[:1]
    if not isinstance(found, dict) or not all(key in found for key in asked):
        there = ", ".join(map(repr, found)) if isinstance(found, dict) and found else "none"
        raise UsageError(
            f"{place}: an object with the keys {' and '.join(map(repr, asked))} is expected, and its keys are {there}"
        )
    for key in asked:
        if not isinstance(found[key], list) or not all(isinstance(text, str) for text in found[key]) or not found[key]:
            raise UsageError(f"{place}: {key!r} must be a list of texts, with at least one")
    words = tuple(found[keys[0]])
    if not all(word.strip() for word in words):
        raise UsageError(f"{place}: a word is empty; leave it out")
    if not labelled:
        return Example(words, None, place)
    tags = tuple(found[keys[1]])
    if len(tags) != len(words):
        raise UsageError(f"{place}: {len(words)} words have {len(tags)} tags; each word needs one")
    return Example(words, tags, place)
