"""Products with a weight: many rows at the speed of arithmetic, and few rows at the speed of memory.

A row that a model generates passes every weight once, and takes as long as reading them. BLAS does not reach that: its
product of one row reads a weight in strides, and for a few rows it first rearranges the whole weight. Where what
belongs to an output lies together in memory, few rows are better served by dot products.

In training the rows of a batch are shared out over workers, and a product needs no threads of its own. Generation has
no such batch: inside `sharing`, large products are cut over several threads.

Read before: `kernels.py`. Read next: `linear.py`.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import itertools
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

import numpy as np
import threadpoolctl

_FEW = 16  # rows
_OUTPUTS = 1200  # numbers that a product of a few rows may have for OpenBLAS not to rearrange the weight first
_WORTH = 1 << 21  # multiplications: what a second thread saves exceeds what it takes to wake it
_LONG = 10_000_000  # weights, as of the head: the same, where one row meets them at the speed of memory

_crew: contextvars.ContextVar[tuple[int, Executor | None]] = contextvars.ContextVar("crew", default=(1, None))


@contextlib.contextmanager
def sharing(threads: int) -> Iterator[None]:
    """Inside, large products are cut over so many threads, each with BLAS at one thread."""
    with _blas().limit(limits=1, user_api="blas"):
        token = _crew.set((threads, _pool(threads)))
        try:
            yield
        finally:
            _crew.reset(token)


@functools.cache
def _pool(threads: int) -> Executor:
    """Kept, for a text enters `sharing` with each of its tokens; its threads wait idle, and end with the process."""
    return ThreadPoolExecutor(max(threads - 1, 1))


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has none of the threads


@functools.cache
def _blas() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController()  # looks through all loaded libraries


def product(rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """rows W.

    With a weight whose columns lie together, at the widths of GPT-2, on one thread, against BLAS in the same run: one
    row takes 0.5 to 0.8 of the time, which is that of a plain sum of the weight, two rows 0.2 to 0.4, and four to
    sixteen 0.4 to 0.7.

    Args:
        rows: `n d`.
        weight: `d f`.

    Returns:
        `n f`.
    """
    columns = weight.T
    large = rows.size * len(columns) >= _WORTH
    if len(rows) <= _FEW and columns.flags.c_contiguous and rows.dtype == weight.dtype:
        if len(rows) == 1:
            out = np.empty(len(columns), rows.dtype)
            _share(lambda columns, out: np.vecdot(columns, rows, out=out), columns, out, worth=columns.size >= _LONG)
            return out[None]
        out = np.empty((len(columns), len(rows)), rows.dtype)
        part = functools.partial(_dots if len(rows) < 4 else _small_products, rows)
        _share(part, columns, out, worth=large)
        return np.ascontiguousarray(out.T)
    if large and _crew.get()[0] > 1:
        out = np.empty((len(rows), len(columns)), np.result_type(rows, weight))
        _share(lambda rows, out: np.matmul(rows, weight, out=out), rows, out, worth=True)
        return out
    return rows @ weight


def _share(part, array, out, *, worth):
    """part(array, out), which goes by lines of both; cut over the threads of `sharing` where it is worth it."""
    threads, pool = _crew.get()
    if threads == 1 or not worth:
        part(array, out)
        return
    ends = [len(array) * i // threads for i in range(threads + 1)]
    jobs = [pool.submit(part, array[a:b], out[a:b]) for a, b in itertools.pairwise(ends[1:])]
    part(array[: ends[1]], out[: ends[1]])
    for job in jobs:
        job.result()


def _dots(rows, columns, out):
    """Each column is read once, and meets every row while it is in cache."""
    np.vecdot(columns[:, None, :], rows, out=out)


def _small_products(rows, columns, out):
    """By blocks of columns so small that OpenBLAS multiplies them where they lie."""
    rows = np.ascontiguousarray(rows.T)
    step = _OUTPUTS // rows.shape[1]
    for start in range(0, len(columns), step):
        np.matmul(columns[start : start + step], rows, out=out[start : start + step])
