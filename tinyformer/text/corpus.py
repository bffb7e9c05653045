"""A text of any size as a file of token ids, read from the disk as it is needed.

The text is tokenised once, as a stream, into a file beside the run. Training then reads windows of it with
`pread`: memory stays small whatever the size of the text, several threads may read at once, and a file that
has been cut short is a clear error (a memory map would kill the process).

The file is a header of 64 bytes and then the ids, little-endian, each in 1, 2 or 4 bytes as the vocabulary
needs.

Read before: `vocabulary.py`. Read next: `batches.py`.
"""

import math
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import TinyformerError, UsageError
from ..files import reason, replacing
from .spans import Span, read_chunks, spans, watch_utf8
from .tokenizers import Tokenizer

Progress = Callable[[int, int, str], None]

MAGIC = b"tinytok1"
_FIELDS = struct.Struct("<8sIIQQ")  # magic, bytes an id, vocabulary, ids, bytes of text
_CHECK = struct.Struct("<I")  # CRC-32 of the fields
HEADER_BYTES = 64
LINE_SEARCH_BYTES = 1 << 16
COUNT_CHUNK = 1 << 18


class TokenFile:
    """Token ids on the disk. `TokenFile.open(path)` makes one; `len` is the number of ids.

    Attributes:
        path: the file.
        text_bytes: bytes of text that the ids stand for, so that a loss per token becomes bits per byte.
        vocabulary_size: every id is smaller than this.
    """

    def __init__(self, path: Path, descriptor: int, width: int, vocabulary_size: int, count: int, text_bytes: int):
        self.path = path
        self.text_bytes = text_bytes
        self.vocabulary_size = vocabulary_size
        self._descriptor = descriptor
        self._dtype = np.dtype(f"<u{width}")
        self._count = count

    @classmethod
    def open(cls, path: Path | str) -> "TokenFile":
        """Open a token file after checking its header and its length.

        Raises:
            TinyformerError: it is missing, not a token file, damaged or cut short; names the file.
        """
        path = Path(path)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe must not be waited for
        except (OSError, ValueError) as error:
            raise TinyformerError(f"cannot open the token file {path}: {reason(error)}") from error
        try:
            return cls(path, descriptor, *_read_header(path, descriptor))
        except BaseException:
            os.close(descriptor)
            raise

    def __len__(self) -> int:
        return self._count

    def __enter__(self) -> "TokenFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        descriptor, self._descriptor = getattr(self, "_descriptor", -1), -1
        if descriptor >= 0:
            os.close(descriptor)

    def read(self, start: int, count: int) -> np.ndarray:
        """Ids `start` to `start + count`, int32.

        Raises:
            ValueError: the range is not inside the file, or the file is closed.
            TinyformerError: the file has been cut short or altered since it was opened.
        """
        if self._descriptor < 0:
            raise ValueError(f"{self.path} is closed")
        if not 0 <= start <= start + count <= self._count:
            raise ValueError(f"ids {start} to {start + count} are not inside the {self._count} of {self.path}")
        width = self._dtype.itemsize
        try:
            data = os.pread(self._descriptor, count * width, HEADER_BYTES + start * width)
        except OSError as error:
            raise TinyformerError(f"cannot read {self.path}: {reason(error)}") from error
        if len(data) != count * width:
            raise _damaged(self.path, "was cut short while it was in use")
        ids = np.frombuffer(data, self._dtype)
        if ids.max(initial=0) >= self.vocabulary_size:
            raise _damaged(self.path, f"has an id outside its vocabulary of {self.vocabulary_size}")
        return ids.astype(np.int32)

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Rows of `length` consecutive ids, one for each start: int32, `b length`."""
        rows = np.empty((len(starts), length), np.int32)
        for row, start in zip(rows, starts.tolist()):
            row[:] = self.read(start, length)
        return rows

    def counts(self) -> np.ndarray:
        """How often each id occurs, int64, `v`; reads the file once, in bounded memory."""
        counts = np.zeros(self.vocabulary_size, np.int64)
        for start in range(0, self._count, COUNT_CHUNK):
            ids = self.read(start, min(COUNT_CHUNK, self._count - start))
            counts += np.bincount(ids, minlength=self.vocabulary_size)
        return counts


def _read_header(path: Path, descriptor: int) -> tuple[int, int, int, int]:
    try:
        header = os.pread(descriptor, HEADER_BYTES, 0)
        size = os.fstat(descriptor).st_size
    except OSError as error:  # a directory opens, but cannot be read
        raise TinyformerError(f"cannot read the token file {path}: {reason(error)}") from error
    if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
        raise _damaged(path, "is not a token file of this version")
    if _CHECK.unpack_from(header, _FIELDS.size)[0] != zlib.crc32(header[: _FIELDS.size]):
        raise _damaged(path, "has a damaged header")
    _, width, vocabulary, count, text_bytes = _FIELDS.unpack_from(header)
    if width not in (1, 2, 4) or not 0 < vocabulary <= 1 << 31:
        raise _damaged(path, "has a damaged header")
    if size != HEADER_BYTES + count * width:
        raise _damaged(path, f"should have {HEADER_BYTES + count * width} bytes but has {size}")
    return width, vocabulary, count, text_bytes


def _damaged(path: Path, what: str) -> TinyformerError:
    return TinyformerError(f"{path} {what}; delete it and tokenise the text again")


def encode_corpus(
    paths: Sequence[Path | str], tokenizer: Tokenizer, target: Path | str, *, progress: Progress | None = None
) -> TokenFile:
    """Tokenise text files, one after the other, into one token file, which appears whole or not at all.

    Args:
        paths: text files; each is encoded by itself, so a token never spans two files.
        tokenizer: turns their bytes into ids.
        target: the token file to write.
        progress: called with bytes done, bytes in all, and what is being done.

    Raises:
        UsageError: a file is missing, a directory or empty.
        TinyformerError: a file cannot be read or encoded, or `target` cannot be written (disk full).
    """
    return _encode_spans(spans(paths), tokenizer, Path(target), progress)


def _encode_spans(
    texts: Sequence[Span],
    tokenizer: Tokenizer,
    target: Path,
    progress: Progress | None,
    done: int = 0,
    total: int = 0,
    found_bytes: Callable[[Path], None] | None = None,
) -> TokenFile:
    size = tokenizer.vocabulary_size
    dtype = np.dtype("<u1" if size <= 1 << 8 else "<u2" if size <= 1 << 16 else "<u4")
    total = total or sum(map(len, texts))
    count = 0

    def watched(span):
        nonlocal done
        for chunk in read_chunks(span):
            yield chunk
            done += len(chunk)
            if progress:
                progress(done, total, "encoding the text")

    with replacing(target) as file:
        file.write(bytes(HEADER_BYTES))
        for span in texts:
            chunks = watched(span)
            if found_bytes and tokenizer.kind != "chars":  # which stops at anything but UTF-8 by itself
                chunks = watch_utf8(chunks, partial(found_bytes, span.path))
            for ids in tokenizer.encode_stream(chunks, span.path):
                file.write(ids.astype(dtype).data)
                count += len(ids)
        fields = _FIELDS.pack(MAGIC, dtype.itemsize, size, count, sum(map(len, texts)))
        file.seek(0)
        file.write(fields + _CHECK.pack(zlib.crc32(fields)))
    return TokenFile.open(target)


def split_corpus(
    paths: Sequence[Path | str],
    tokenizer: Tokenizer,
    folder: Path | str,
    *,
    validation: float | Path | str = 0.1,
    context: int,
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda message: None,
) -> tuple[TokenFile, TokenFile]:
    """Tokenise a corpus into `train.tokens` and `validation.tokens`.

    Args:
        paths: the text files.
        tokenizer: turns their bytes into ids.
        folder: an existing folder for the two token files.
        validation: a text file of its own, or the fraction of the text's bytes to take from its end. The cut
            is moved back to the start of a line if one is near, and never falls inside a UTF-8 character.
        context: both parts must hold at least one window of `context` + 1 tokens.
        progress: called with bytes done, bytes in all, and what is being done.
        warn: told, in a sentence, of each file that is not UTF-8.

    Raises:
        UsageError: a file is missing, a directory or empty; the fraction is not between 0 and 1; a part is
            too short.
        TinyformerError: as for `encode_corpus`.
    """
    texts = spans(paths)
    if isinstance(validation, (str, Path)):
        parts = texts, spans([validation])
    else:
        if not 0 < validation < 1:
            raise UsageError(f"the validation fraction is {validation:g}; it must lie between 0 and 1, e.g. 0.1")
        parts = _cut(texts, validation)
    folder = Path(folder)
    sizes = [sum(map(len, part)) for part in parts]
    told = set()

    def found_bytes(path):
        if path not in told:  # one file may lie in both parts
            told.add(path)
            warn(f"{path} is not UTF-8; training on its bytes")

    train = _encode_spans(parts[0], tokenizer, folder / "train.tokens", progress, 0, sum(sizes), found_bytes)
    _require_window(train, context, "text to train on", "more text")
    target = folder / "validation.tokens"
    held_out = _encode_spans(parts[1], tokenizer, target, progress, sizes[0], sum(sizes), found_bytes)
    remedy = "a longer --validation file"
    if not isinstance(validation, (str, Path)):
        # A token's share of the text varies, so a little more than in proportion.
        enough = math.ceil(110 * validation * (context + 1) / max(len(held_out), 1)) / 100
        remedy = f"--validation {enough:g}" if enough <= 0.5 else "more text"
    _require_window(held_out, context, "validation split", remedy)
    return train, held_out


def _require_window(tokens: TokenFile, context: int, what: str, remedy: str) -> None:
    if len(tokens) < context + 1:
        smaller = f"--context {len(tokens) - 1} or less, or " if len(tokens) > 1 else ""
        raise UsageError(
            f"the {what} has {len(tokens)} tokens, but a context of {context} needs {context + 1}; give "
            f"{smaller}{remedy}"
        )


def _cut(texts: list[Span], fraction: float) -> tuple[list[Span], list[Span]]:
    """The text before and after the point that leaves about `fraction` of its bytes behind it."""
    total = sum(map(len, texts))
    place = min(max(round(total * (1 - fraction)), 0), total)
    first: list[Span] = []
    for i, span in enumerate(texts):
        if place < len(span):
            middle = _line_start(span, place, min(LINE_SEARCH_BYTES, total // 50))
            parts = [Span(span.path, 0, middle)], [Span(span.path, middle, span.stop)]
            return first + [s for s in parts[0] if len(s)], [s for s in parts[1] if len(s)] + texts[i + 1 :]
        first.append(span)
        place -= len(span)
    return first, []


def _line_start(span: Span, place: int, search: int) -> int:
    """The start of the line of `place`, if at most `search` bytes before it; else of its character."""
    begin = max(0, place - max(search, 3))
    before = b"".join(read_chunks(Span(span.path, begin, place + 1)))
    newline = before.rfind(b"\n", 0, -1)
    if newline >= 0 and place - begin - newline - 1 <= search:
        return begin + newline + 1
    back = 0
    while back < 3 and back < place - begin and before[-1 - back] & 0xC0 == 0x80:
        back += 1
    return place - back
