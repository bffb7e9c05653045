"""The lines of a user's file, one at a time, with what a message calls them.

Read next: `examples.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..errors import TinyformerError, UsageError
from ..files import reason
from ..text.spans import spans

LONGEST = 1 << 20  # bytes of a line; more is an error at once, lest a file without line breaks fill the memory
MARK = b"\xef\xbb\xbf"  # that some programs put before UTF-8

Source = Path | str | IO[bytes]


def name_of(source: Source) -> str:
    """What a message calls a file."""
    if isinstance(source, (str, Path)):
        return str(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) and not name.startswith("<") else "standard input"


def read_lines(source: Source, *, longest: int = LONGEST) -> Iterator[tuple[int, str]]:
    """Each line with its number, from 1, and its line break if it has one; a mark before the first is left out.

    Args:
        source: a path, or a file that is open for reading bytes, which stays open.
        longest: bytes of a line.

    Raises:
        UsageError: the file is missing, a directory or empty; a line is not UTF-8, or longer.
        TinyformerError: it cannot be read.
    """
    name = name_of(source)
    if isinstance(source, (str, Path)):
        spans([source])
        with open(source, "rb") as file:
            yield from _lines(file, name, longest)
    else:
        yield from _lines(source, name, longest)


def _lines(file: IO[bytes], name: str, longest: int) -> Iterator[tuple[int, str]]:
    number = 0
    while line := _next(file, name, longest):
        number += 1
        if len(line) > longest:
            raise UsageError(f"{name}, line {number} is longer than {longest >> 20} MiB; is this the right file?")
        try:
            yield number, line.removeprefix(MARK if number == 1 else b"").decode()
        except UnicodeDecodeError as error:
            wrong = line[error.start] if number > 1 or not line.startswith(MARK) else line[error.start + len(MARK)]
            raise UsageError(
                f"{name}, line {number} is not UTF-8 (its byte 0x{wrong:02x} is not); save the file as UTF-8"
            ) from None
    if not number:
        raise UsageError(f"{name} is empty; give a file with examples in it")


def _next(file: IO[bytes], name: str, longest: int) -> bytes:
    try:
        return file.readline(longest + 1)
    except OSError as error:
        raise TinyformerError(f"cannot read {name}: {reason(error)}") from error
