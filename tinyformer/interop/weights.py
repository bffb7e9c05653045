"""The weights of a Hugging Face directory: one safetensors file, or shards and the index that says what lies where.

A safetensors file is a length, that many bytes of JSON (each tensor's dtype, shape and place), and then the numbers
themselves. Reading it takes no library, which is as well: NumPy has no bfloat16, so the packaged reader stops there.
A bfloat16 is the upper half of a float32, and widening is a shift. Tensors are mapped and not read until they are
asked for, so a large model is in memory once.

Read before: `tinyformer/training/tensorfile.py`. Read next: `table.py`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from ..errors import TinyformerError, UsageError
from ..training.tensorfile import DamagedFile

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLE = "pytorch_model.bin"
_MOST_JSON = 16 << 20  # bytes of a header or an index: some 100,000 tensors; parsed, it takes many times as much
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclasses.dataclass(frozen=True)
class _Stored:
    """Where a tensor lies."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int


class Weights:
    """The tensors of a directory, by name.

    Args:
        directory: with `model.safetensors`, or an index and its shards.

    Raises:
        UsageError: there are no weights, or only in a format that runs code when it is read.
        TinyformerError: a shard is missing, or a file is damaged; the message names it.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory
        self._stored: dict[str, _Stored] = {}
        for path, names in _files(directory).items():
            found = _header(path)
            if names is not None and (missing := names - found.keys()):
                raise DamagedFile(f"{path} lacks {min(missing)!r}, which {INDEX} says it holds; fetch it again")
            self._stored |= found

    def __contains__(self, name: str) -> bool:
        return name in self._stored

    @property
    def names(self) -> list[str]:
        """Of all tensors."""
        return list(self._stored)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one tensor, without reading it."""
        return self._stored[name].shape

    def read(self, name: str) -> np.ndarray:
        """One tensor in float32.

        Raises:
            TinyformerError: it holds numbers of another kind than floats of 16, 32 or 64 bits.
        """
        stored = self._stored[name]
        if stored.dtype not in _DTYPES:
            known = ", ".join(_DTYPES)
            raise TinyformerError(f"{stored.path}: {name!r} is of type {stored.dtype}; readable are {known}")
        if 0 in stored.shape:
            return np.zeros(stored.shape, np.float32)
        dtype = np.dtype(_DTYPES[stored.dtype])
        array = np.memmap(stored.path, dtype, mode="r", offset=stored.offset, shape=stored.shape)
        if stored.dtype == "BF16":
            return np.left_shift(array, 16, dtype=np.uint32).view(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # what does not fit float32 is infinite there
            return np.asarray(array).astype(np.float32, copy=False)

    def same(self, first: str, second: str) -> bool:
        """Whether two tensors hold the same numbers."""
        return self.shape(first) == self.shape(second) and np.array_equal(self.read(first), self.read(second))


def _files(directory: Path) -> dict[Path, set[str] | None]:
    """The files that hold weights, each with the names that an index expects in it."""
    if (directory / SINGLE).is_file():
        return {directory / SINGLE: None}
    if not (directory / INDEX).is_file():
        if any(directory.glob(_PICKLE.replace(".bin", "*.bin*"))):
            raise UsageError(
                f"{directory} has its weights only as {_PICKLE}, a pickle, which can run code and is not read; open it "
                "with transformers where you trust it, and write it with save_pretrained(..., safe_serialization=True)"
            )
        raise UsageError(f"{directory} has no weights: neither {SINGLE} nor {INDEX} is there")
    index = read_json(directory / INDEX).get("weight_map")
    if not isinstance(index, dict) or not all(isinstance(name, str) for name in index.values()):
        raise DamagedFile(f"{directory / INDEX} is damaged: its weight_map should name a file for each tensor")
    shards: dict[Path, set[str] | None] = {}
    for name, file in index.items():
        if Path(file).name != file or not file.isprintable():
            raise DamagedFile(f"{directory / INDEX} is damaged: {file!r} is no name of a file beside it")
        shards.setdefault(directory / file, set()).add(name)
    if missing := sorted(path.name for path in shards if not os.path.isfile(path)):  # False, too, for what is no name
        some = ", ".join(missing[:3]) + (" and more" if len(missing) > 3 else "")
        raise UsageError(f"{directory} lacks {len(missing)} of its {len(shards)} shards: {some}; fetch them, too")
    return shards


def _header(path: Path) -> dict[str, _Stored]:
    """What a safetensors file holds. Every number is checked against the size of the file."""
    try:
        with files.open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, _MOST_JSON):
                raise ValueError("its header does not fit it")
            header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("its header is no table of tensors")
        header.pop("__metadata__", None)
        return {name: _place(path, name, entry, 8 + length, size) for name, entry in header.items()}
    except OSError as error:
        raise DamagedFile(f"cannot read {path}: {files.reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{path} is damaged, or no safetensors file: {str(error)[:200]}") from error


def _place(path: Path, name: str, entry: Any, start: int, size: int) -> _Stored:
    if not name.isprintable():  # messages show names, and a terminal obeys what is not
        raise ValueError(f"{name!r} is no name of a tensor")
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{name!r} has no dtype, shape and data_offsets") from None
    numbers = (*shape, begin, end)
    if not isinstance(dtype, str) or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"{name!r} has an impossible dtype, shape or place")
    known = dtype in _DTYPES
    if not begin <= end <= size - start or (
        known and end - begin != math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
    ):
        raise ValueError(f"{name!r} of shape {shape} does not fit its place; the file may have been cut short")
    return _Stored(path, dtype, shape, start + begin)


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object from a file.

    Raises:
        UsageError: there is no such file.
        TinyformerError: it cannot be read or holds something else; the message names it.
    """
    try:
        found = json.loads(files.read_file(path, _MOST_JSON))
        if not isinstance(found, dict):
            raise ValueError("it should hold one JSON object")
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist") from None
    except OSError as error:
        raise TinyformerError(f"cannot read {path}: {files.reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise TinyformerError(f"{path} is damaged: {str(error)[:200]}") from error
    return found
