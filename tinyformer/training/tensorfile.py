"""Arrays in the safetensors format: written without a copy of them, read as pages of the file.

A file is eight bytes with the length of its header, a JSON object with each array's dtype, shape and place, and then
the numbers of all arrays without a gap. So an array that lies in memory in one piece is its own part of the file, and
a part of a file that is mapped into memory is an array. A checkpoint of 42 MB of weights, 126 MB with AdamW's means,
was saved with 0.3 MB beside the arrays, where having the package build the files took 211 MB; and reading it again took
none but the pages of the file, which the system drops as it likes, where it took 124 MB.

The package checks what is read. A file from anywhere may make it raise half a dozen kinds of error, or be no file at
all: here, there is one kind of error for everything that can be wrong.

Read before: `tinyformer/files.py`. Read next: `checkpoint.py`.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors

from .. import files
from ..errors import TinyformerError

_MOST_HEADER = 2 << 20  # bytes, some 20,000 tensors; parsing takes many times as much
# In the order in which a file holds them: the widest numbers come first, and so all are aligned.
_KINDS = ("U64", "I64", "F64", "F32", "U32", "I32", "F16", "U16", "I16", "I8", "U8", "BOOL")
_DTYPES = dict(
    zip(_KINDS, ("<u8", "<i8", "<f8", "<f4", "<u4", "<i4", "<f2", "<u2", "<i2", "|i1", "|u1", "|b1"), strict=True)
)
_NAMES = {dtype: kind for kind, dtype in _DTYPES.items()}


class DamagedFile(TinyformerError):
    """A file is not what its format promises; the message names the file and says what is wrong."""


def encode(tensors: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> list[bytes | memoryview]:
    """The content of a safetensors file in pieces: its header, and each array, which must not change until it is used.

    An array that is not contiguous is copied.

    Args:
        tensors: arrays by name.
        metadata: what the header says beside them.
    """
    found = []
    for name, array in tensors.items():
        array = np.asarray(array, np.asarray(array).dtype.newbyteorder("<"), order="C")
        found.append((_KINDS.index(_NAMES[array.dtype.str]), name, array))
    header, pieces, end = {} if metadata is None else {"__metadata__": metadata}, [], 0
    for kind, name, array in sorted(found, key=lambda item: item[:2]):
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": _KINDS[kind], "shape": array.shape, "data_offsets": (begin, end)}
        pieces.append(array.reshape(-1).view(np.uint8).data)
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little") + text, *pieces]


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, by name.

    They are pages of the file, read when they are used, and copied when they are written to: the file never changes,
    but it must not be cut short meanwhile.

    Raises:
        DamagedFile: it cannot be read, or is not in order. Its size bounds the memory that finding out takes.
    """
    try:
        with files.open_regular(path) as file:
            length, size = int.from_bytes(file.read(8), "little"), os.fstat(file.fileno()).st_size
            if not 2 <= length <= min(size - 8, _MOST_HEADER):
                raise ValueError("its header does not fit it")
            with safetensors.safe_open(path, framework="numpy"):  # every byte belongs to one tensor, or it raises
                header = json.loads(file.read(length))
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        header.pop("__metadata__", None)
        return {
            name: np.ndarray(entry["shape"], _DTYPES[entry["dtype"]], pages, 8 + length + entry["data_offsets"][0])
            for name, entry in header.items()
        }
    except OSError as error:
        raise DamagedFile(f"cannot read {path}: {files.reason(error)}") from error
    except MemoryError as error:
        raise DamagedFile(f"{path} is too large for the memory of this machine") from error
    except KeyError as error:
        raise DamagedFile(f"{path} holds numbers of a type that NumPy lacks: {error}") from error
    except (safetensors.SafetensorError, AttributeError, OverflowError, RecursionError, TypeError, ValueError) as error:
        # The reason may quote the file, and a terminal obeys what is not printable.
        why = "".join(sign if sign.isprintable() else "?" for sign in str(error)[:200])
        raise DamagedFile(f"{path} is damaged, or no safetensors file: {why}") from error
