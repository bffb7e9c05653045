"""How an inspection looks on a terminal: tokens side by side as in a book's figure, and attention as a square of marks.

All is laid out by the columns that characters take on a screen: Chinese ones take two, accents none. What the output's
encoding cannot write is escaped.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from .columns import clipped, padded, width
from .figures import counted

_MARGIN = "  "
_LABEL = 14  # columns of the token before a row of the square
_LONGEST = 20  # columns of a token elsewhere
_PLACE = 4  # columns of its number


def page(facts: Any, kind: str, tokens: int | None) -> None:
    """Print an inspection.

    Args:
        facts: an `analysis.inspection.Inspection`.
        kind: of the tokenizer.
        tokens: how many to show at most of what the model reads; None for as many as the terminal is wide enough for.
    """
    for line in _lines(facts, kind, tokens, _Screen()):
        click.echo(line.rstrip())


class _Screen:
    """What can be shown: how wide the terminal is, what its encoding has, and whether letters may be bold."""

    def __init__(self) -> None:
        self.columns = shutil.get_terminal_size().columns
        self.encoding = sys.stdout.encoding or "utf-8"
        self.styled = not os.environ.get("NO_COLOR")
        self.yes, self.no, self.space, self.more = ("■", "·", "␣", "…") if self.has("■·␣…◌") else ("x", ".", "_", "~")

    def has(self, text: str) -> bool:
        """Whether the output's encoding can write a text."""
        return text.encode(self.encoding, "replace") == text.encode(self.encoding, "backslashreplace")

    def bold(self, text: str) -> str:
        return click.style(text, bold=True) if self.styled else text

    def readable(self, text: str) -> str:
        """A text on one line, without what would move the cursor, and with an accent that is alone on a circle."""
        shown = "".join(c if c.isprintable() and self.has(c) else repr(c)[1:-1] for c in text)
        shown = shown.encode(self.encoding, "backslashreplace").decode(self.encoding)
        return "◌" + shown if shown and not width(shown[0]) else shown

    def token(self, text: str) -> str:
        """A token, whose spaces can be seen."""
        return clipped(self.readable(text).replace(" ", self.space), _LONGEST, self.more)

    def line(self, text: str) -> str:
        """What fits one line."""
        return clipped(text, self.columns, self.more)


def _lines(facts: Any, kind: str, tokens: int | None, screen: _Screen) -> Iterator[str]:
    reads = [facts.inputs] if facts.decoder_inputs is None else [facts.inputs, facts.decoder_inputs]
    lengths = [len(side.ids) for side in reads]
    room = (screen.columns - len(_MARGIN) - _PLACE - _LABEL - 2 * (len(reads) - 1)) // 2
    shown = _fitting(lengths, room) if tokens is None else [min(length, tokens) for length in lengths]
    hidden = sum(lengths) - sum(shown)
    yield screen.bold(screen.line(f"{facts.mode}, {facts.objective}; tokens are {kind}, {facts.vocabulary} ids"))
    yield from _drawn(facts, screen)
    yield from _text(facts, max(shown) if hidden else None, screen)
    yield from _reading(facts, shown, screen)
    yield from _attention(facts, reads, shown, screen)
    if hidden:
        yield f"\n{_MARGIN}{counted(hidden, 'more token')} not shown; --tokens {max(lengths)} shows all"
    if facts.rows > 1:
        yield f"\n{_MARGIN}row {facts.row + 1} of the {facts.rows} that show all of the text"
    if facts.left_out:
        yield f"\n{_MARGIN}{counted(facts.left_out, 'more token')} of the text did not fit the context"


def _drawn(facts: Any, screen: _Screen) -> Iterator[str]:
    """The row as papers draw it."""
    yield f"\n{screen.bold('in short')}"
    for what, text in facts.drawn.items():
        yield screen.line(f"{_MARGIN}{what:<8}{screen.readable(text)}")
    if facts.sentinels:
        names = [f"{letter} is {name}" for letter, name in facts.sentinels.items()]
        known = ", ".join([*names[:2], *["..."] * (len(names) > 2)])
        yield screen.line(f"{_MARGIN}{known}; to the model, {facts.targets.texts[-1]} ends both")
    if facts.label is not None:
        yield f"{_MARGIN}{'label':<8}{facts.label}, {'B is from another document' if facts.label else 'B follows A'}"


def _text(facts: Any, most: int | None, screen: _Screen) -> Iterator[str]:
    names = {1: ("text",), 2: ("source", "target") if facts.mode == "encoder-decoder" else ("document", "another")}
    for name, text in zip(facts.names or names[len(facts.texts)], facts.texts):
        yield from _strip(name, {"token": _cells(text, screen), "id": text.ids}, most, screen)


def _reading(facts: Any, shown: Sequence[int], screen: _Screen) -> Iterator[str]:
    """What each part of the model reads, and what it shall say."""
    weighted = [weight > 0 for weight in facts.weights]
    targets = (
        {"label": [screen.token(label) for label in facts.labels]}
        if facts.labels is not None
        else {
            "target": [cell if counts else "" for cell, counts in zip(_cells(facts.targets, screen), weighted)],
            "id ": [i if counts else "" for i, counts in zip(facts.targets.ids, weighted)],
            "weight": [f"{weight:g}" for weight in facts.weights],
        }
    )
    inputs = {"place": range(len(facts.inputs.ids)), "input": _cells(facts.inputs, screen), "id": facts.inputs.ids}
    told = {"document": facts.documents, "position": facts.positions, "segment": facts.segments}
    inputs |= {name: values for name, values in told.items() if values is not None}
    if facts.decoder_inputs is None:
        yield from _strip(facts.mode, inputs | targets, shown[0], screen)
        return
    yield from _strip("encoder", inputs, shown[0], screen)
    read = facts.decoder_inputs
    inputs = {"place": range(len(read.ids)), "input": _cells(read, screen), "id": read.ids}
    yield from _strip("decoder", inputs | targets, shown[1], screen)


def _cells(tokens: Any, screen: _Screen) -> list[str]:
    return [screen.token(text) for text in tokens.texts]


def _strip(name: str, rows: dict[str, Sequence[Any]], most: int | None, screen: _Screen) -> Iterator[str]:
    """Rows of cells below each other, cut into as many strips as the screen's width asks for."""
    cells = [list(map(str, row))[:most] for row in rows.values()]
    widths = [max(map(width, column)) for column in zip(*cells)]
    label = len(_MARGIN) + max(map(len, rows)) + 2
    yield f"\n{screen.bold(name)}"
    start = 0
    while start < len(widths):
        stop, used = start + 1, label + widths[start]
        while stop < len(widths) and used + 2 + widths[stop] <= screen.columns:
            used, stop = used + 2 + widths[stop], stop + 1
        if start:
            yield ""
        for title, row in zip(rows, cells):
            line = "  ".join(map(padded, row[start:stop], widths[start:stop]))
            yield f"{_MARGIN}{title:<{label - len(_MARGIN)}}{line}".rstrip()
        start = stop


def _attention(facts: Any, reads: Sequence[Any], shown: Sequence[int], screen: _Screen) -> Iterator[str]:
    """Who may look at whom, a row for each token that looks; the decoder's above the encoder's, as in T5's figure."""
    yield f"\n{screen.bold('attention')}"
    yield screen.line(f"{_MARGIN}{screen.yes} where the token of the row may look at the token of the column")
    indent = " " * (len(_MARGIN) + _PLACE + _LABEL)
    both = len(reads) == 2
    if both:
        sides = (clipped(name, 2 * count - 1, "") for name, count in zip(("encoder", "decoder"), shown))
        yield (indent + _MARGIN.join(map(padded, sides, (2 * count for count in shown)))).rstrip()
    for digits in ([str(place // 10 % 100) if place % 10 == 0 < place else "" for place in range(max(shown))], None):
        marks = digits or [str(place % 10) for place in range(max(shown))]
        ruler = _MARGIN.join("".join(f"{mark:<2}" for mark in marks[:count]) for count in shown).rstrip()
        if ruler:
            yield indent + ruler
    groups = {"decoder": ("cross", "decoder"), "encoder": ("encoder",)} if both else {facts.mode: (facts.mode,)}
    for name, patterns in groups.items():
        if both:
            yield f"{_MARGIN}{name}"
        side = facts.decoder_inputs if both and name == "decoder" else facts.inputs
        keys = [shown[0] if pattern != "decoder" else shown[-1] for pattern in patterns]
        for place, cell in enumerate(_cells(side, screen)[: shown[-1] if name == "decoder" else shown[0]]):
            token = padded(clipped(cell, _LABEL - 1, screen.more), _LABEL - 1)
            rows = (facts.attention[pattern][place][:count] for pattern, count in zip(patterns, keys))
            marks = (_MARGIN[1:].join(screen.yes if seen else screen.no for seen in row) for row in rows)
            yield f"{_MARGIN}{place:>{_PLACE - 1}} {token} {(_MARGIN + ' ').join(marks)}"


def _fitting(lengths: Sequence[int], room: int) -> list[int]:
    """How many tokens of each text there is room for, if one or two share it."""
    room = max(room, len(lengths))
    if len(lengths) == 1:
        return [min(lengths[0], room)]
    first = min(lengths[0], max(room // 2, room - lengths[1]))
    return [first, min(lengths[1], room - first)]
