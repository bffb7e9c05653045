"""Learning the merges of a byte-pair encoding: again and again, merge the most frequent pair of neighbours.

The text is only read once, to count its pieces; all else happens on the counts. Merging one pair changes the
counts of few others, so these are kept up to date instead of counted anew, and a heap finds the largest. The
naive version of the same algorithm is in the tests.

Read before: `bpe.py`. Read next: `vocabulary.py`.
"""

import gc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from heapq import heapify, heappop, heappush

import numpy as np

from .bpe import REMEMBERED_CHARACTERS, pieces_of, split

# More distinct pieces, or more bytes of them, take no part. In natural text they are rare ones, which could not earn
# a merge; a text without spaces has few others, and its tables would outgrow the memory.
DISTINCT, DISTINCT_BYTES = 1 << 17, 2 << 20
IDS = 1 << 32  # more than there are ids
BORDER, INSIDE = -1, -2  # where no token begins: between two pieces, and within a token


def count_pieces(counts: Counter[str], chunks: Iterable[bytes], *, most: int = DISTINCT) -> None:
    """Add the pieces of one text to `counts`, in bounded memory.

    Words are counted first, and then the pieces of each distinct one. Most words of a text have occurred before, and
    to split them is the dearer part: this takes half the time of splitting everything.

    Whenever there are more than 2 `most` distinct pieces, the rarest are forgotten until `most` are left. Of
    equally rare ones the last to appear goes first, so the result depends on nothing but the text.
    """
    words: Counter[str] = Counter()
    room = REMEMBERED_CHARACTERS  # for characters of words: as many may be read before they are counted again
    for pieces, found in split(chunks):
        counts.update(pieces)
        words.update(found)
        room -= sum(map(len, found))
        if room < 0:
            room = REMEMBERED_CHARACTERS - sum(map(len, words))
        if room < 0 or len(counts) > 2 * most:
            _count_words(counts, words, most)
            room = REMEMBERED_CHARACTERS
    _count_words(counts, words, most)


def _count_words(counts: Counter[str], words: Counter[str], most: int) -> None:
    """Move words into the counts of pieces, and forget the rarest of these where there are too many."""
    for word, count in words.items():
        for piece in pieces_of(word):
            counts[piece] += count
    words.clear()
    if len(counts) > 2 * most:
        kept = counts.most_common(most)
        counts.clear()
        counts.update(dict(kept))


def train_bpe(
    counts: Mapping[str, int],
    vocabulary_size: int,
    *,
    most: int = DISTINCT,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[int, int]]:
    """The merges that byte-pair encoding learns from counted pieces (Sennrich 2016, algorithm 1).

    A pair's count is how often its two ids are neighbours inside a piece ("aaa" has the pair "aa" twice). The
    largest count wins; among equals the pair with the smaller left id, then the smaller right id.

    Args:
        counts: how often each piece occurs; the `most` frequent are used.
        vocabulary_size: wanted size, the 256 bytes included.
        progress: called now and then with the number of merges found and wanted.

    Returns:
        Pairs of ids, in the order in which they were learned. Fewer than wanted if no pair occurs twice any
        more.
    """
    with _no_collector():
        return _merges(_Places(Counter(counts).most_common(most)), vocabulary_size - 256, progress)


def _merges(places: "_Places", wanted: int, progress: Callable[[int, int], None]) -> list[tuple[int, int]]:
    pairs, holders = places.pairs()
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapify(heap)

    merges: list[tuple[int, int]] = []
    while len(merges) < wanted and heap:
        negative, pair = heappop(heap)
        count = pairs.get(pair, 0)
        if count != -negative:
            # Once a pair is on the heap its count only falls: the entry was an upper bound, and goes back lower.
            if count > 0:
                heappush(heap, (-count, pair))
            continue
        if count < 2:
            break
        for other in places.merge(pair, pairs, holders):
            heappush(heap, (-pairs[other], other))
        merges.append(divmod(pair, IDS))
        if len(merges) % 256 == 0:
            progress(len(merges), wanted)
    return merges


@contextmanager
def _no_collector() -> Iterator[None]:
    """Inside, Python does not look for cycles, of which there are none: it would walk through all places each time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Places:
    """The bytes of all pieces in a row, and which token stands where.

    A token stands at the place of its first byte, and its last byte knows that place. So the neighbours of a token are
    found without a search, and a merge touches nothing but them. A pair is one number, left * `IDS` + right, which
    orders pairs as (left, right) does and is cheaper than a tuple.

    Args:
        pieces: and how often each occurs.
    """

    def __init__(self, pieces: Iterable[tuple[str, int]]) -> None:
        self.tokens, self.weights, self.sizes = [BORDER], [0], [1] * 256
        for number, (piece, count) in enumerate(pieces):
            if len(self.tokens) - number > DISTINCT_BYTES:
                break
            content = piece.encode("utf-8", "surrogateescape")
            self.tokens += [*content, BORDER]
            self.weights += [count] * (len(content) + 1)
        self.begins = list(range(len(self.tokens)))

    def pairs(self) -> tuple[dict[int, int], dict[int, list[int]]]:
        """How often each pair occurs, and the places of its left tokens, in rising order."""
        tokens, weights = np.asarray(self.tokens), np.asarray(self.weights)
        places = np.flatnonzero((tokens[:-1] != BORDER) & (tokens[1:] != BORDER))
        pairs = tokens[places] * IDS + tokens[places + 1]
        order = np.argsort(pairs, kind="stable")
        places, pairs = places[order], pairs[order]
        starts = np.flatnonzero(np.diff(pairs, prepend=-1))
        found, counts = pairs[starts].tolist(), np.add.reduceat(weights[places], starts).tolist()
        holders = (part.tolist() for part in np.split(places, starts[1:]))
        return dict(zip(found, counts)), dict(zip(found, holders))

    def merge(self, pair: int, pairs: dict[int, int], holders: dict[int, list[int]]) -> set[int]:
        """Make one token of each such pair, the next id; `pairs` and `holders` follow. Returns the pairs that arose."""
        tokens, begins, weights, sizes = self.tokens, self.begins, self.weights, self.sizes
        left, right = divmod(pair, IDS)
        new, step = len(sizes), sizes[left]
        sizes.append(step + sizes[right])
        created: set[int] = set()
        for place in holders.pop(pair):
            # What was merged meanwhile, perhaps here ("aaa" has "aa" twice), is not what it was.
            if tokens[place] != left or tokens[place + step] != right:
                continue
            weight, end = weights[place], place + sizes[new]
            if tokens[place - 1] != BORDER:
                before = begins[place - 1]
                other = tokens[before] * IDS
                pairs[other + left] -= weight
                other += new
                if other in pairs:
                    pairs[other] += weight
                    holders[other].append(before)
                else:
                    pairs[other], holders[other] = weight, [before]
                created.add(other)
            after = tokens[end]
            if after != BORDER:
                pairs[right * IDS + after] -= weight
                other = new * IDS + after
                if other in pairs:
                    pairs[other] += weight
                    holders[other].append(place)
                else:
                    pairs[other], holders[other] = weight, [place]
                created.add(other)
            tokens[place], tokens[place + step] = new, INSIDE
            begins[end - 1] = place
        del pairs[pair]
        return created
