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

Progress = Callable[[int, int, str], None]  # bytes done, bytes in all, what is being done


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


def read_texts(
    texts: Sequence[Span], progress: Progress | None, what: str, *, before: int = 0, total: int = 0
) -> Iterator[tuple[Span, Iterator[bytes]]]:
    """Each text with its chunks, which are to be read before the next text is asked for.

    Args:
        texts: the spans.
        progress: called with bytes done, bytes in all, and `what`.
        what: is being done with the texts.
        before: bytes that were done before.
        total: bytes in all, if there are more than those of the texts.
    """
    total = total or sum(map(len, texts))

    def chunks(span: Span) -> Iterator[bytes]:
        nonlocal before
        for chunk in read_chunks(span):
            yield chunk
            before += len(chunk)
            if progress:
                progress(before, total, what)

    for span in texts:
        yield span, chunks(span)


def validation_file(validation: float | Path | str) -> list[Span]:
    """The validation text if it is a file of its own; nothing if it is a fraction of the training text.

    Raises:
        UsageError: the file is missing, a directory or empty; the fraction is not between 0 and 1.
    """
    if isinstance(validation, (str, Path)):
        return spans([validation])
    if not 0 < validation < 1:
        raise UsageError(f"the validation fraction is {validation:g}; it must lie between 0 and 1, e.g. 0.1")
    return []


def warn_of_bytes(warn: Callable[[str], object]) -> Callable[[Path], None]:
    """What to call with the path of a file that is not UTF-8; warns of each once."""
    told: set[Path] = set()

    def found(path: Path) -> None:
        if path not in told:
            told.add(path)
            warn(f"{path} is not UTF-8; training on its bytes")

    return found


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
