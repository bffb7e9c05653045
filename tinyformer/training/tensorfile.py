"""The safetensors format, both ways: eight bytes of length, a JSON header, then the arrays one by one.

The format is public and this small, and here it never holds the data twice: `encode` hands out the arrays
themselves, and `read` reads into the arrays that it returns. (The safetensors package makes a second copy
of everything both ways; the tests hold this file to it.) A file from anywhere may be read: nothing is
allocated before the header has been checked against the size of the file.

Read before: `files.py`. Read next: `checkpoint.py`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import TinyformerError
from . import files

_DTYPES = {
    name: np.dtype(kind).newbyteorder("<")
    for name, kind in {
        "F64": "f8", "F32": "f4", "F16": "f2", "BOOL": "?",
        "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
        "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1",
    }.items()
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_MOST_HEADER = 2 << 20  # bytes; Python's objects for a hostile header take some twenty times as much
_MOST_AXES = 16


class DamagedFile(TinyformerError):
    """A file is not what its format promises; the message names the file and says what is wrong."""


class _Entry(NamedTuple):
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def encode(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> list[Any]:
    """The buffers that make up a safetensors file. Contiguous arrays are not copied.

    Args:
        tensors: arrays by name.
        metadata: texts to put into the header.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    buffers, offset = [], 0
    for name, tensor in tensors.items():
        array = np.ascontiguousarray(tensor, np.asarray(tensor).dtype.newbyteorder("<"))
        end = offset + array.nbytes
        header[name] = {
            "dtype": _NAMES[array.dtype], "shape": list(np.shape(tensor)), "data_offsets": [offset, end]
        }  # fmt: skip
        buffers.append(array.reshape(-1).view(np.uint8).data)
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little") + text, *buffers]


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, by name.

    Raises:
        DamagedFile: it cannot be read, or is not in order. Its size bounds the memory that finding out takes.
    """
    try:
        with files.open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, _MOST_HEADER):
                raise ValueError("its header does not fit it")
            entries = _parse(file.read(length), size - 8 - length)
            return {entry.name: _read_array(file, entry) for entry in entries}
    except OSError as error:
        raise DamagedFile(f"cannot read {path}: {files.reason(error)}") from error
    except MemoryError as error:
        raise DamagedFile(f"{path} is too large for the memory of this machine") from error
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{path} is damaged, or no safetensors file: {error}") from error


def _read_array(file: Any, entry: _Entry) -> np.ndarray:
    array = np.empty(math.prod(entry.shape), entry.dtype)
    if file.readinto(array.view(np.uint8).data) != array.nbytes:
        raise ValueError(f"it ends within {entry.name!r}")
    return array.astype(entry.dtype.newbyteorder("="), copy=False).reshape(entry.shape)


def _parse(text: bytes, data_bytes: int) -> list[_Entry]:
    """The checked header: what each array is, in the order of the file. Raises ValueError."""
    header = json.loads(text)
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not texts")
    entries = sorted((_entry(name, fields) for name, fields in header.items()), key=lambda e: (e.begin, e.end))
    position = 0
    for entry in entries:
        if entry.begin != position or entry.end - entry.begin != math.prod(entry.shape) * entry.dtype.itemsize:
            raise ValueError(f"the place of {entry.name[:80]!r} does not fit its shape or its neighbours")
        position = entry.end
    if position != data_bytes:
        raise ValueError(f"it should hold {position} bytes of numbers and holds {data_bytes}")
    return entries


def _entry(name: str, fields: Any) -> _Entry:
    shown = repr(name[:80])
    if not isinstance(fields, dict) or fields.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{shown} is not described by dtype, shape and data_offsets")
    dtype = fields["dtype"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"{shown} holds numbers of type {str(dtype)[:20]!r}, which NumPy lacks")
    shape, offsets = _sizes(fields["shape"]), _sizes(fields["data_offsets"])
    if shape is None or offsets is None or len(offsets) != 2:
        raise ValueError(f"{shown} has an impossible shape or place")
    return _Entry(name, _DTYPES[dtype], shape, *offsets)


def _sizes(value: Any) -> tuple[int, ...] | None:
    """A short list of integers that a size or an offset can be, or None."""
    if not isinstance(value, list) or len(value) > _MOST_AXES:
        return None
    if any(type(n) is not int or not 0 <= n < 1 << 60 for n in value):
        return None
    return tuple(value)
