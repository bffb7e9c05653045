"""Learning the merges of a byte-pair encoding: again and again, merge the most frequent pair of neighbours.

The text is only read once, to count its pieces; all else happens on the counts. Merging one pair changes the
counts of few others, so these are kept up to date instead of counted anew, and a heap finds the largest. The
naive version of the same algorithm is in the tests.

Read before: `bpe.py`. Read next: `vocabulary.py`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush
from itertools import pairwise

from .bpe import REMEMBERED_CHARACTERS, pieces_of, split

# More distinct pieces, or more bytes of them, take no part. In natural text they are rare ones, which could not earn
# a merge; a text without spaces has few others, and its tables would outgrow the memory.
DISTINCT, DISTINCT_BYTES = 1 << 17, 2 << 20


def count_pieces(counts: Counter[str], chunks: Iterable[bytes], *, most: int = DISTINCT) -> None:
    """Add the pieces of one text to `counts`, in bounded memory.

    Words are counted first, and then the pieces of each distinct one. Most words of a text have occurred before, and
    to split them is the dearer part: this takes half the time of splitting everything.

    Whenever there are more than 2 `most` distinct pieces, the rarest are forgotten until `most` are left. Of
    equally rare ones the last to appear goes first, so the result depends on nothing but the text.
    """
    words: Counter[str] = Counter()
    for pieces, found in split(chunks):
        counts.update(pieces)
        words.update(found)
        if sum(map(len, words)) > REMEMBERED_CHARACTERS or len(counts) > 2 * most:
            _count_words(counts, words, most)
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
    words, weights, size = [], [], 0
    for piece, count in Counter(counts).most_common(most):
        words.append(list(piece.encode("utf-8", "surrogateescape")))
        weights.append(count)
        size += len(words[-1])
        if size > DISTINCT_BYTES:
            break
    pairs: dict[tuple[int, int], int] = {}
    holders: dict[tuple[int, int], set[int]] = {}  # words that have, or once had, the pair
    for i, word in enumerate(words):
        for pair in pairwise(word):
            pairs[pair] = pairs.get(pair, 0) + weights[i]
            holders.setdefault(pair, set()).add(i)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapify(heap)

    merges: list[tuple[int, int]] = []
    wanted = vocabulary_size - 256
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
        created: set[tuple[int, int]] = set()
        new = 256 + len(merges)
        for i in holders.pop(pair):
            words[i] = _merge(words[i], pair, new, weights[i], pairs, holders, created, i)
        del pairs[pair]
        for other in created:
            heappush(heap, (-pairs[other], other))
        merges.append(pair)
        if len(merges) % 256 == 0:
            progress(len(merges), wanted)
    return merges


def _merge(word, pair, new, weight, pairs, holders, created, index):
    """One word with `pair` merged; `pairs` and `holders` follow, and new pairs go into `created`."""
    left, right = pair
    out: list[int] = []
    i, last = 0, len(word) - 1
    while i <= last:
        if word[i] != left or i == last or word[i + 1] != right:
            out.append(word[i])
            i += 1
            continue
        if out:
            before = out[-1]
            pairs[before, left] -= weight
            pairs[before, new] = pairs.get((before, new), 0) + weight
            holders.setdefault((before, new), set()).add(index)
            created.add((before, new))
        i += 2
        out.append(new)
        if i <= last:
            after = word[i]
            pairs[right, after] -= weight
            pairs[new, after] = pairs.get((new, after), 0) + weight
            holders.setdefault((new, after), set()).add(index)
            created.add((new, after))
    return out
