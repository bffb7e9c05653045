"""Which windows of a text a step trains on, and how a text is scored from end to end.

The order of training is a pure function of (seed, step). Nothing is shuffled in memory and nothing has to be
saved: a resumed run asks for the next step and gets what the uninterrupted run would have got, on a text of
any size.

Read before: `corpus.py`. Read next: `tinyformer.objectives`, which turns windows into inputs and targets.
"""

from collections.abc import Iterator

import numpy as np

from ..errors import UsageError
from .token_file import TokenFile

ROUNDS = 4  # enough for a network of good random functions (Luby and Rackoff 1988)


class Shuffle:
    """The numbers 0 to `count` - 1 in a random order, a new one in each epoch, that costs no memory.

    Args:
        count: how many there are, at least 1.
        seed: any integer.
    """

    def __init__(self, count: int, seed: int):
        if count < 1:
            raise ValueError(f"there is nothing to shuffle: count is {count}")
        self.count = count
        self._seed = _mix(np.array([seed & (1 << 64) - 1], np.uint64))

    def items(self, step: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """The epoch and the number of each item in a step's batch, int64, both `b`.

        Args:
            step: number of the step, from 0.
            batch_size: items in each step. A batch may begin in one epoch and end in another.
        """
        return self.at(step * batch_size + np.arange(batch_size, dtype=np.int64))

    def at(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The epoch and the number of the items at these places, int64, of all epochs one after the other."""
        epoch, place = np.divmod(places, self.count)
        keys = [self.bits(epoch, i) for i in range(ROUNDS)]
        return epoch, self._permute(place.astype(np.uint64), keys).astype(np.int64)

    def bits(self, epoch: np.ndarray, salt: int) -> np.ndarray:
        """64 random bits for each epoch, uint64. Salts below `ROUNDS` are those of the order itself."""
        return _mix(_mix(epoch.astype(np.uint64) + self._seed) + np.uint64(salt))

    def _permute(self, place: np.ndarray, keys: list[np.ndarray]) -> np.ndarray:
        """A permutation of the numbers for each set of keys: a Feistel network on an even number of bits.

        The network permutes all numbers of that many bits, up to four times as many as are wanted. A result
        that is too large is put through again until it is not ("cycle walking", Black and Rogaway 2002),
        which is again a permutation.
        """
        half = np.uint64(max(1, ((self.count - 1).bit_length() + 1) // 2))
        mask = (np.uint64(1) << half) - np.uint64(1)
        out = place.copy()
        todo = np.arange(len(out))
        while todo.size:
            left, right = out[todo] >> half, out[todo] & mask
            for key in keys:
                left, right = right, left ^ (_mix(right ^ key[todo]) & mask)
            out[todo] = left << half | right
            todo = todo[out[todo] >= self.count]
        return out


class Windows:
    """Windows of a text, in a random order that costs no memory.

    An epoch lays windows end to end and visits each exactly once. Neighbours may share tokens: where each token
    is predicted from those before it, a window begins at the last token of the one before, so that no target
    comes twice and none is left out. A random phase shifts all windows of an epoch, so that their borders fall
    elsewhere each time, and what is left out at the ends is less than two windows.

    Args:
        length: number of tokens in the text.
        size: tokens in a window.
        seed: any integer.
        overlap: tokens that a window shares with the next.
        phase: shift the windows of each epoch; without it they are the same in every epoch.

    Attributes:
        stride: tokens from the start of one window to the next.
        per_epoch: windows in an epoch.

    Raises:
        UsageError: the text is shorter than one window.
    """

    def __init__(self, length: int, size: int, seed: int, *, overlap: int = 0, phase: bool = True):
        if not 0 <= overlap < size:
            raise ValueError(f"windows of {size} tokens cannot share {overlap} with the next")
        if length < size:
            raise UsageError(
                f"the text has {length} tokens, but a row takes {size}; give more text or a smaller --context"
            )
        self.stride = size - overlap
        room = length - overlap  # n windows take n strides of it
        self.per_epoch = max(1, (room - (self.stride - 1 if phase else 0)) // self.stride)
        self._phases = min(self.stride, room - self.per_epoch * self.stride + 1) if phase else 1
        self._shuffle = Shuffle(self.per_epoch, seed)

    def items(self, step: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """The epoch of each window in a step's batch, and where the window begins, int64, both `b`.

        Args:
            step: number of the step, from 0.
            batch_size: windows in each step.
        """
        epoch, window = self._shuffle.items(step, batch_size)
        phase = self._shuffle.bits(epoch, ROUNDS) % np.uint64(self._phases)
        return epoch, window * self.stride + phase.astype(np.int64)


def _mix(x: np.ndarray) -> np.ndarray:
    """64 well-mixed bits for each number (the finaliser of splitmix64, Steele 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def scoring_rows(
    tokens: TokenFile, context: int, batch_size: int, *, stride: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Batches that score every token of a text but the first exactly once, in order.

    Each row is a full window that moves on by `stride`; only the targets that no earlier row has scored have
    weight 1. A smaller stride gives each token more context and costs more rows. The last row ends with the
    text. Only a text shorter than `context` + 1 tokens gives a shorter row.

    Args:
        tokens: the text, at least two tokens.
        context: tokens the model sees.
        batch_size: most rows at a time.
        stride: new targets in a row, 1 to `context` (the default).

    Yields:
        inputs and targets, int32 `b t`, and weights, float32 `b t`.

    Raises:
        UsageError: the text has fewer than two tokens, or the stride is not in its range.
    """
    stride = context if stride is None else stride
    if not 1 <= stride <= context:
        raise UsageError(f"the stride is {stride}; it must be from 1 to the context, {context}")
    targets = len(tokens) - 1
    if targets < 1:
        raise UsageError("the text has fewer than two tokens, so there is nothing to predict; give a longer one")
    width = min(context, targets)
    rows = 1 + -(-(targets - width) // stride)
    for first in range(0, rows, batch_size):
        row = np.arange(first, min(rows, first + batch_size))
        starts = np.minimum(row * stride, targets - width)
        ids = tokens.windows(starts, width + 1)
        # Before this row, targets up to its predecessor's end are scored; the very first row has none.
        scored = np.where(row == 0, 0, (row - 1) * stride + width)
        position = starts[:, None] + np.arange(width)
        yield ids[:, :-1], ids[:, 1:], (position >= scored[:, None]).astype(np.float32)
