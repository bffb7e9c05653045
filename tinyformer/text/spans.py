"""Text files read in pieces: everything under `text/` reads through `read_chunks`, so memory stays bounded.

Read next: `tokenizers.py`.
"""

import codecs
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ..errors import TinyformerError, UsageError
from ..files import open_regular, reason

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Span:
    """Bytes `start` to `stop` of a text file."""

    path: Path
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def spans(paths: Sequence[Path | str]) -> list[Span]:
    """The whole of each file, after checking that it can be read as text.

    Raises:
        UsageError: no file given, or one that is missing, a directory, not a regular file, or empty.
        TinyformerError: a file that may not be read.
    """
    if not paths:
        raise UsageError("no text file given; name at least one")
    return [_whole(Path(path)) for path in paths]


def _whole(path: Path) -> Span:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise UsageError(f"{path} is a directory; name the text files inside it instead")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its other end
            raise UsageError(f"{path} is not a regular file; save the text to a file first")
        open_regular(path).close()
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}; check the name and the folder") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        raise TinyformerError(f"cannot read {path}: {reason(error)}; check its permissions") from error
    if status.st_size == 0:
        raise UsageError(f"{path} is empty; give a file with text in it")
    return Span(path, 0, status.st_size)


def read_chunks(span: Span, size: int = CHUNK_BYTES) -> Iterator[bytes]:
    """The bytes of a span in order, at most `size` at a time.

    Raises:
        TinyformerError: the file cannot be read, or has become shorter since its size was taken.
    """
    position = span.start
    try:
        with span.path.open("rb", buffering=0) as file:
            file.seek(position)
            while position < span.stop:
                chunk = file.read(min(size, span.stop - position))
                if not chunk:
                    raise TinyformerError(f"{span.path} became shorter while it was read; leave it alone and rerun")
                position += len(chunk)
                yield chunk
    except OSError as error:
        raise TinyformerError(f"cannot read {span.path}: {reason(error)}") from error


def watch_utf8(chunks: Iterable[bytes], found_other: Callable[[], object]) -> Iterator[bytes]:
    """The chunks as they are; `found_other` is called once where together they are not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    valid = True
    for chunk in chain(chunks, [None]):
        if valid:
            try:
                decoder.decode(chunk or b"", final=chunk is None)
            except UnicodeDecodeError:
                valid = False
                found_other()
        if chunk is not None:
            yield chunk
