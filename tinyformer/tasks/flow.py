"""Many things that come one by one: computed in batches of like length, answered in order, and soon.

A batch is as long as its longest row, and what fills the others is computed for nothing. So things are taken some
batches at a time, all their rows are sorted by length before they are cut into batches, and what comes out is put back
into the order in which they came. Twice that is all that is held, however many things there are.

From a pipe or a terminal, things may come slowly. A thread then reads ahead, and what has come so far is computed: what
is there never waits for what is not.

Read before: `task.py`. Read next: `predicting.py`, `features.py`.
"""

from __future__ import annotations

import collections
import contextvars
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

BATCHES = 16  # whose rows are sorted together
_Item, _Row = TypeVar("_Item"), TypeVar("_Row")


def computed(
    items: Iterable[_Item],
    rows: Callable[[_Item], Sequence[_Row]],
    size: Callable[[_Row], int],
    compute: Callable[[list[_Row]], Sequence[Any]],
    *,
    batch_size: int = 16,
    threads: int = 1,
    live: bool = False,
    done: Callable[[int], None] = lambda rows: None,
) -> Iterator[tuple[_Item, list[Any]]]:
    """Each item with what was computed of its rows, in the order of the items.

    Args:
        items: any number; no more are read ahead than fill 32 batches.
        rows: of an item, any number.
        size: of a row: its length.
        compute: of rows of like length, one result for each.
        batch_size: rows that are computed at once.
        threads: that compute a batch each.
        live: whether items may come slowly; then a thread reads them, and each is computed with those that are there.
        done: called after each batch with how many rows it had, where the results are taken.

    Raises:
        Exception: what `items`, `rows`, `compute` or `done` raise. Where it is of an item, those before it were
            yielded.
    """
    encoded = ((item, list(rows(item))) for item in items)
    pool = ThreadPoolExecutor(threads)
    try:
        for group in (_arriving if live else _taken)(encoded, BATCHES * batch_size):
            flat = [row for _, own in group for row in own]
            batches = alike([size(row) for row in flat], batch_size)
            jobs = [pool.submit(contextvars.copy_context().run, compute, [flat[i] for i in batch]) for batch in batches]
            results: list[Any] = [None] * len(flat)
            for batch, job in zip(batches, jobs, strict=True):
                for number, result in zip(batch, job.result(), strict=True):
                    results[number] = result
                done(len(batch))
            found = iter(results)
            for item, own in group:
                yield item, list(itertools.islice(found, len(own)))
    finally:
        pool.shutdown(cancel_futures=True)


def alike(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Which rows to compute together: all of them by number, the longest first, `most` at a time."""
    order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    return [order[start : start + most] for start in range(0, len(order), most)]


def _taken(items: Iterable[_Item], most: int) -> Iterator[list[_Item]]:
    """Items in lists of `most`. An error that one of them raises comes after those before it."""
    items, failure = iter(items), None
    while failure is None:
        group: list[_Item] = []
        try:
            for item in itertools.islice(items, most):
                group.append(item)
        except Exception as error:
            failure = error
        if group:
            yield group
        elif failure is None:
            return
    raise failure


def _arriving(items: Iterable[_Item], most: int) -> Iterator[list[_Item]]:
    """Items in lists of all that are there, at least one and at most `most`; errors as of `_taken`."""
    reader = _Reader(items, most)
    try:
        while group := reader.take():
            yield group
    finally:
        reader.leave()


class _Reader(Generic[_Item]):
    """A thread that reads items ahead, as many as `most`.

    It may wait for an item that never comes, and does not keep the process from ending.
    """

    def __init__(self, items: Iterable[_Item], most: int) -> None:
        self._items, self._most = items, most
        self._waiting: collections.deque[_Item] = collections.deque()
        self._failure: Exception | None = None
        self._ended = self._unwanted = False
        self._changed = threading.Condition()
        threading.Thread(target=self._read, name="reader of items", daemon=True).start()

    def take(self) -> list[_Item]:
        """All that are there, once there is one; none at the end. An error comes after the items before it."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            taken = list(self._waiting)
            self._waiting.clear()
            self._changed.notify()
        if not taken and self._failure is not None:
            raise self._failure
        return taken

    def leave(self) -> None:
        """No more items are wanted."""
        with self._changed:
            self._unwanted = True
            self._changed.notify()

    def _read(self) -> None:
        failure = None
        try:
            for item in self._items:
                with self._changed:
                    self._changed.wait_for(lambda: self._unwanted or len(self._waiting) < self._most)
                    if self._unwanted:
                        return
                    self._waiting.append(item)
                    self._changed.notify()
        except Exception as error:
            failure = error
        with self._changed:
            self._ended, self._failure = True, failure
            self._changed.notify()
