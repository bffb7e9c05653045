"""Files of questions about texts: SQuAD's JSON, of version 1.1 or 2.0, or JSON lines.

    {"version": "v2.0", "data": [{"title": ..., "paragraphs": [{"context": "...", "qas": [
        {"id": "...", "question": "...", "answers": [{"text": "...", "answer_start": 17}]}]}]}]}

An answer is a stretch of its context. In version 2.0 a question may have none, and its list of answers is empty
(Rajpurkar 2018); what the file says of it beyond that (`plausible_answers`) is not read. A validation file may have
several answers to a question, any of which is right.

As JSON lines, a question each: {"id": "...", "question": "...", "context": "...", "answers": [...]}, where answers may
also be {"text": [...], "answer_start": [...]}, as the package datasets writes them. Without answers, as for `predict`,
either kind may leave them out; JSON lines are then read as they come, and a blank one is an example without texts.

Read before: `examples.py`. Read next: `answer.py`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import UsageError
from .examples import Columns, Example
from .lines import Source, name_of, read_lines

LONGEST = 1 << 30  # bytes of a line: the published files are a single one
FORM = "SQuAD's JSON is expected, or JSON lines with the keys 'question', 'context' and (but for predict) 'answers'"


def stream_questions(
    source: Source,
    columns: Columns = Columns(),
    *,
    labelled: bool = True,
    warn: Callable[[str], None] = lambda message: None,
) -> Iterator[Example]:
    """The questions of a file, each with its context; as labels their answers; see `Task.stream`.

    Args:
        source: a path, or an open file.
        columns: none; the names of keys are SQuAD's.
        labelled: whether each question must have a list of answers; without, none is read.
        warn: told, in a sentence, how many blank lines were passed over.

    Raises:
        UsageError: the file cannot be read, a key is missing, or an answer is not where the file says.
    """
    name, lines = name_of(source), read_lines(source, longest=LONGEST)
    columns.refuse(f"{name} has the keys of SQuAD")
    ahead = [next(lines)]
    while not ahead[-1][1].strip() and (following := next(lines, None)):
        ahead.append(following)
    first = ahead[-1][1].strip()
    if not first and labelled:
        raise UsageError(f"{name} has only blank lines; {FORM}")
    lines = itertools.chain(ahead, lines)
    if not first or name.lower().endswith(".jsonl") or _is_question(first):
        blank = 0
        for number, line in lines:
            if line.strip():
                place = f"{name}, line {number}"
                found = _object(_parsed(line, place), place)
                yield _question(found, _text(found, "context", place), labelled, place)
            elif labelled:
                blank += 1
            else:
                yield Example((), None, f"{name}, line {number}")
        if blank:
            warn(f"{name}: {blank:,} blank {'line was' if blank == 1 else 'lines were'} passed over")
    else:
        yield from _from_squad(_parsed("".join(line for _, line in lines), name), labelled, name)


def _is_question(line: str) -> bool:
    """Whether a line is a question by itself, and not the beginning of one object."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "data" not in found


def _from_squad(found: Any, labelled: bool, name: str) -> Iterator[Example]:
    count = 0
    for number, article in enumerate(_list(_object(found, name), "data", name), 1):
        place = f"{name}, article {number}"
        for number_inside, paragraph in enumerate(_list(_object(article, place), "paragraphs", place), 1):
            inside = f"{place}, paragraph {number_inside}"
            context = _text(_object(paragraph, inside), "context", inside)
            for question in _list(paragraph, "qas", inside):
                yield _question(_object(question, inside), context, labelled, inside)
                count += 1
    if not count:
        raise UsageError(f"{name} has no question in it; {FORM}")


def _question(found: dict[str, Any], context: str, labelled: bool, place: str) -> Example:
    key = str(found.get("id", ""))
    if key:
        place = f"{place}, question {key}"
    texts = _text(found, "question", place), context
    if not labelled:
        return Example(texts, None, place, key)
    answers = []
    for answer in _answers(found, place):
        text, start = _text(_object(answer, place), "text", place), answer.get("answer_start")
        if type(start) is not int:
            raise UsageError(f"{place}: an answer's 'answer_start' must be a number of characters, and is {start!r}")
        if start < 0 or context[start : start + len(text)] != text:
            elsewhere = context.find(text)
            hint = f"it stands at {elsewhere}" if elsewhere >= 0 else "nor is it anywhere else there"
            raise UsageError(
                f"{place}: the answer {_short(text)} is not at character {start} of its context, {hint}; correct the "
                "file, or remove the question"
            )
        answers.append((text, start))
    return Example(texts, tuple(answers), place, key)


def _answers(found: dict[str, Any], place: str) -> list[Any]:
    """The list of answers, also where there are two instead, of texts and of places."""
    both = found.get("answers")
    if not isinstance(both, dict):
        return _list(found, "answers", place)
    texts, starts = both.get("text"), both.get("answer_start")
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        raise UsageError(f"{place}: 'answers' must have two lists of the same length, 'text' and 'answer_start'")
    return [{"text": text, "answer_start": start} for text, start in zip(texts, starts)]


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place}: this is no JSON ({error}); {FORM}") from None


def _object(found: Any, place: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise UsageError(f"{place}: an object is expected, and there is {_short(found)}; {FORM}")
    return found


def _value(found: dict[str, Any], key: str, place: str) -> Any:
    if key not in found:
        there = f"those there are {', '.join(map(repr, found))}" if found else f"the object is empty, and {FORM}"
        raise UsageError(f"{place}: there is no key {key!r}; {there}")
    return found[key]


def _list(found: dict[str, Any], key: str, place: str) -> list[Any]:
    value = _value(found, key, place)
    if not isinstance(value, list):
        raise UsageError(f"{place}: {key!r} must be a list, and is {_short(value)}")
    return value


def _text(found: dict[str, Any], key: str, place: str) -> str:
    value = _value(found, key, place)
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{place}: {key!r} must be a text that is not empty, and is {_short(value)}")
    return value


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
