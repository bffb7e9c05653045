"""A text as documents, which blank lines separate: encoders must not look from one into another.

A line is blank if it holds nothing but white space. A document is what stands between blank lines, without
the line break after it. The text comes in chunks and may be one document of any size, so a document is not a
string but again a stream of chunks.

Read before: `spans.py`. Read next: `encoding.py`.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain

LONGEST_BLANK = (1 << 16) - 1  # more white space in a line counts as text, for it must be held back until the line ends
# Possessive (`+` after a repetition), for there is nothing to go back to: this saves the memory of each blank line.
BREAK = re.compile(rb"\r?\n(?:[ \t\r\f\v]{0,%d}+\n)++" % LONGEST_BLANK)


def documents(chunks: Iterable[bytes], *, inside: bool = False) -> Iterator[Iterator[bytes]]:
    """Each document of a text that arrives in chunks, cut anywhere, as chunks of its own, none of them empty.

    As with `itertools.groupby`, each document must be read to its end before the next one is asked for.

    Args:
        chunks: consecutive bytes of the text.
        inside: the text begins in the middle of a document.
    """
    parts = _parts(chunks, inside)
    for part in parts:
        if part is not None:
            yield chain([part], iter(lambda: next(parts, None), None))


def _parts(chunks: Iterable[bytes], inside: bool) -> Iterator[bytes | None]:
    """The pieces of all documents, and None after the last piece of each."""
    # Between documents, the text begins with the break of the line before, so that blank lines that follow, and
    # those at the very beginning, match, too. The two breaks at the end close the last document.
    text = b"" if inside else b"\n"
    for chunk in chain(chunks, [b"\n\n"]):
        text += chunk
        place = 0 if inside else 1
        for found in BREAK.finditer(text):
            if found.start() > place:
                yield text[place : found.start()]
                inside = True
            if inside:
                yield None
            place, inside = found.end(), False
        certain = _certain(text)
        if certain > place:
            yield text[place:certain]
            place, inside = certain, True
        text = text[place if inside else place - 1 :]


def _certain(text: bytes) -> int:
    """How much of a text surely belongs to no break that goes on after it."""
    line = text.rfind(b"\n")
    if line >= 0 and len(text) - line - 1 <= LONGEST_BLANK and not text[line:].strip():
        return line - (text[line - 1 : line] == b"\r")
    return len(text) - text.endswith(b"\r")
