"""Text by the columns that it takes on a screen: Chinese characters take two, accents none."""

from __future__ import annotations

import unicodedata


def width(text: str) -> int:
    """Columns that a text takes."""
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    part_of_hangul = "\u1160" <= character <= "\u11ff"  # a vowel or a final, which joins the syllable before it
    if part_of_hangul or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def one_line(text: str) -> str:
    """A text on one line: what cannot be shown is written as in a Python string."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def padded(text: str, columns: int) -> str:
    """A text and as many spaces as make up these columns."""
    return text + " " * (columns - width(text))


def clipped(text: str, columns: int, more: str) -> str:
    """A text cut to some columns, with the mark `more` where something was cut off."""
    if width(text) <= columns:
        return text
    while text and width(text) + width(more) > columns:
        text = text[:-1]
    return text + more
