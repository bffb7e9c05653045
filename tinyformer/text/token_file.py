"""Token ids on the disk, read as they are needed.

A text is tokenised once, as a stream, into a file beside the run. Training then reads windows of it with
`pread`: memory stays small whatever the size of the text, several threads may read at once, and a file that
has been cut short is a clear error (a memory map would kill the process).

The file is a header of 64 bytes and then the ids, little-endian, each in 1, 2 or 4 bytes as the vocabulary
needs.

Read before: `tokenizers.py`. Read next: `corpus.py`.
"""

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import TinyformerError
from ..files import reason, replacing

MAGIC = b"tinytok1"
_FIELDS = struct.Struct("<8sIIQQ")  # magic, bytes an id, vocabulary, ids, bytes of text
_CHECK = struct.Struct("<I")  # CRC-32 of the fields
HEADER_BYTES = 64
COUNT_CHUNK = 1 << 18


class TokenFile:
    """Token ids on the disk. `TokenFile.open(path)` makes one; `len` is the number of ids.

    Attributes:
        path: the file.
        text_bytes: bytes of text that the ids stand for, so that a loss per token becomes bits per byte. What
            only separates documents or pairs is counted, too: it is the size of the text in its files.
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
        for _, ids in self.stretches():
            counts += np.bincount(ids, minlength=self.vocabulary_size)
        return counts

    def stretches(self) -> Iterator[tuple[int, np.ndarray]]:
        """All ids in order, a bounded stretch at a time: where it starts, and its ids as int32."""
        for start in range(0, self._count, COUNT_CHUNK):
            yield start, self.read(start, min(COUNT_CHUNK, self._count - start))


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


class TokenWriter:
    """Takes the ids of a token file in order; `write_tokens` makes one.

    Attributes:
        text_bytes: bytes of text that the ids stand for; to be set by whoever knows.
    """

    def __init__(self, file: IO[bytes], vocabulary_size: int):
        self.text_bytes = 0
        self._file = file
        self._size = vocabulary_size
        self._dtype = np.dtype("<u1" if vocabulary_size <= 1 << 8 else "<u2" if vocabulary_size <= 1 << 16 else "<u4")
        self._count = 0

    def write(self, ids: np.ndarray) -> None:
        """Append ids, of any integer type."""
        self._file.write(ids.astype(self._dtype).data)
        self._count += len(ids)

    def header(self) -> bytes:
        """The header for what has been written so far."""
        fields = _FIELDS.pack(MAGIC, self._dtype.itemsize, self._size, self._count, self.text_bytes)
        return (fields + _CHECK.pack(zlib.crc32(fields))).ljust(HEADER_BYTES, b"\0")


@contextlib.contextmanager
def write_tokens(path: Path, vocabulary_size: int) -> Iterator[TokenWriter]:
    """A token file to write to, which appears under its name whole or not at all.

    Raises:
        TinyformerError: it cannot be written (disk full).
    """
    with replacing(path) as file:
        writer = TokenWriter(file, vocabulary_size)
        file.write(writer.header())
        yield writer
        file.seek(0)
        file.write(writer.header())
