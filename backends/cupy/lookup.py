"""Rows of a table by their numbers, and the gradient of that: the same bits in every run, and nobody waits.

An index that is no row cannot be told at once, for the host does not see it: a kernel leaves word in memory that both
see, rows are taken as if it were the nearest one that is, and the error is raised where the host waits anyway.

Read before: `device.py`. Read next: `lookup.cu`.
"""

from __future__ import annotations

import math
from typing import Any

import cupy
import numpy as np

from .launch import REALS, Source

_SOURCE = Source("lookup.cu")
_FLOAT = np.dtype(np.float32)
_THREADS = 256
_BITS, _TILE, _CHUNK = 4, 1024, 64  # as sort.cuh and lookup.cu have them


def _readable(indices: Any) -> tuple[Any, dict[str, int]]:
    """The indices as 32 or 64 bits without gaps, and what the compiler is told of them."""
    if indices.dtype not in (np.int32, np.int64):
        indices = indices.astype(np.int64)
    return cupy.ascontiguousarray(indices), {"NARROW": 1} if indices.dtype == np.int32 else {}


def check_indices(indices: Any, size: int, fault: np.uint64) -> None:
    """Leave word where an index lies outside [0, size).

    Args:
        indices: integers of any shape.
        size: of the table.
        fault: a place of `device.Faults`.
    """
    if indices.size:
        indices, defines = _readable(indices)
        arguments = (indices, np.int64(indices.size), np.int64(size), fault)
        _SOURCE.launch("check_indices", _FLOAT, 1, 1024, arguments, **defines)


def take(table: Any, indices: Any) -> Any:
    """Rows of a table `v ...` of any dtype: `n ...`, for integers `n`."""
    shape, rows = (*indices.shape, *table.shape[1:]), table.shape[0]
    if rows == 0 and indices.size:
        raise IndexError("there is no row to take")
    table, out = cupy.ascontiguousarray(table), cupy.empty(shape, table.dtype)
    indices, defines = _readable(indices)
    row_bytes = math.prod(table.shape[1:]) * table.dtype.itemsize
    places = row_bytes | table.data.ptr | out.data.ptr
    unit = 16 if places % 16 == 0 else 4 if places % 4 == 0 else 1
    arguments = (table, indices, out, *map(np.int64, (indices.size, rows, row_bytes)), np.int32(unit))
    grid = -(-indices.size * 32 // _THREADS) if row_bytes else 0
    _SOURCE.launch("take", _FLOAT, grid, _THREADS, arguments, **defines)
    return out


def adds(shape: tuple[int, ...], indices: Any, values: Any) -> bool:
    """Whether `scatter_add` can."""
    small = shape[0] < 1 << 31 and indices.size < 1 << 30 and math.prod(shape[1:]) < 1 << 23
    return values.dtype.name in REALS and small


def scatter_add(shape: tuple[int, ...], indices: Any, values: Any) -> Any:
    """See `Backend.scatter_add`: each row is added up in float32, by its positions in increasing order."""
    out = cupy.zeros(shape, values.dtype)
    n, width = indices.size, math.prod(shape[1:])
    if n == 0 or out.size == 0:
        return out
    values = cupy.ascontiguousarray(values)
    keys, positions = _sorted(indices, shape[0])
    chunks = -(-n // _CHUNK)
    size = 16 // values.dtype.itemsize
    packed = width % size == 0 and values.data.ptr % 16 == 0
    parts = cupy.empty((chunks, 2, width), np.float32)
    counts = np.int32(n), np.int32(width)
    block, grid = _spread(width // size if packed else width)
    arguments = (keys, positions, values, out, parts, *counts, np.int32(packed))
    _SOURCE.launch("add_chunks", values.dtype, (chunks, grid), block, arguments)
    if chunks > 1:
        block, grid = _spread(width)
        _SOURCE.launch("join_chunks", values.dtype, (chunks, grid), block, (keys, parts, out, *counts))
    return out


def _spread(items: int) -> tuple[int, int]:
    """Threads of a block, whole warps, and blocks, for so many items."""
    blocks = -(-items // _THREADS)
    return -(-items // (32 * blocks)) * 32, blocks


def _sorted(indices: Any, rows: int) -> tuple[Any, Any]:
    """The indices in increasing order, uint32, and where each stood, int32; equal ones in the order of their places."""
    indices, defines = _readable(indices)
    n = indices.size
    tiles = -(-n // _TILE)
    totals = cupy.empty((1 << _BITS, tiles), np.int32)
    keys = positions = None
    for shift in range(0, max((rows - 1).bit_length(), 1), _BITS):
        given = (indices if shift == 0 else None, keys)
        settings = (np.int32(n), np.int64(rows), np.int32(shift), totals)
        _SOURCE.launch("sort_count", _FLOAT, tiles, 256, (*given, *settings), **defines)
        made = cupy.empty(n, np.uint32), cupy.empty(n, np.int32)
        _SOURCE.launch("sort_place", _FLOAT, tiles, 256, (*given, positions, *settings, *made), **defines)
        keys, positions = made
    return keys, positions
