"""Long texts in windows that overlap, so that a model whose context is short reads all of them.

What stands at the edge of a window is read with less around it than what stands in its middle. So each place belongs
to the window that shows most of what is on both sides of it: the "max context" of BERT's run_squad.py.

Read next: `tag.py`, `answer.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def windows(sizes: Sequence[int], room: int, stride: int) -> list[tuple[int, int]]:
    """Where windows begin and end that together show all parts of a text, in order.

    Parts are never cut: one that is larger than a window has one to itself, and is for the caller to shorten.

    Args:
        sizes: tokens of each part.
        room: tokens of a window.
        stride: the next window begins this many tokens later, or fewer where that would be amid a part; at least one
            part later, at the latest where the one before ends, and where it shows something new.

    Returns:
        Numbers of parts, the first one and the one behind the last; a single window if that shows everything.
    """
    found, start = [], 0
    while True:
        stop = _reach(sizes, start, room)
        found.append((start, stop))
        if stop == len(sizes):
            return found
        start = min(_reach(sizes, start, stride), stop)
        while _reach(sizes, start, room) == stop:  # a large part comes next, and nothing new would be shown
            start += 1


def _reach(sizes: Sequence[int], start: int, most: int) -> int:
    """The part behind the last of those from `start` on that together have at most so many tokens; at least one."""
    stop, held = start, 0
    while stop < len(sizes) and (stop == start or held + sizes[stop] <= most):
        held += sizes[stop]
        stop += 1
    return stop


def owners(found: Sequence[tuple[int, int]], count: int) -> np.ndarray:
    """For each of `count` parts, the number of the window that it has most around it in, on the side where it has less.

    Of equals the longest, and then the first, as in run_squad.py.
    """
    chosen, most = np.zeros(count, np.int64), np.full(count, -1.0)
    for number, (start, stop) in enumerate(found):
        places = np.arange(stop - start)
        around = np.minimum(places, places[::-1]) + 0.01 * len(places)
        better = around > most[start:stop]
        chosen[start:stop][better], most[start:stop][better] = number, around[better]
    return chosen
