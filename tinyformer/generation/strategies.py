"""Which token comes next: sampling row by row, the likeliest of each row, or a beam search over whole texts.

A strategy sees only next-token logits and says which rows go on with which token; `decode.py` runs it against
a `State`. Read `filters.py` first. Beam search: Wu 2016, §7.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .filters import draw, keep_top_k, keep_top_p, log_softmax, penalise_repetition
from .options import Options

Ended = Callable[[Sequence[int]], bool]  # does a text of these generated tokens end here?


@dataclass(frozen=True)
class Settled:
    """Tokens that will not change any more: the next ones of a sample (score 0), or a whole found text."""

    sample: int
    tokens: list[int]
    score: float = 0.0


class Strategy(Protocol):
    def step(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[Settled]]:
        """Choose from logits `b v`: the parents and tokens of the rows that go on, and what is settled now.

        The first call sees one row, which all texts continue (but see `Greedy`). No rows left means that the texts
        are complete.
        """
        ...

    def rest(self) -> list[Settled]:
        """What remains to be said when the loop is over."""
        ...


class Sampler:
    """Draw each row's next token from its filtered distribution; at temperature 0 take the likeliest.

    Every sample has its own random stream and uses one number of it per token, so that it does not depend
    on how many others are drawn beside it.

    Args:
        seen: tokens that the repetition penalty counts as having occurred.
        vocabulary: `v`.
        options: how to choose; `temperature` is a number here.
        ended: whether a text is complete.
    """

    def __init__(self, seen: np.ndarray, vocabulary: int, options: Options, ended: Ended):
        self.options = options
        self.ended = ended
        self.samples = np.arange(options.samples)  # the sample that each row belongs to
        self.parents = np.zeros(options.samples, dtype=np.int64)  # at first all continue one row
        self.streams = [np.random.default_rng([options.seed, sample]) for sample in self.samples]
        self.texts: list[list[int]] = [[] for _ in self.samples]
        self.seen = _marked(seen, vocabulary)

    def step(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[Settled]]:
        logits, self.seen = logits[self.parents], self.seen[self.parents]
        tokens = self._choose(penalise_repetition(logits, self.seen, self.options.repetition_penalty))
        self.seen[np.arange(len(tokens)), tokens] = True
        settled = []
        for sample, token in zip(self.samples, tokens.tolist()):
            self.texts[sample].append(token)
            settled.append(Settled(int(sample), [token]))
        alive = np.array([not self.ended(self.texts[sample]) for sample in self.samples])
        parents = self.parents[alive]
        self.samples, self.seen = self.samples[alive], self.seen[alive]
        self.parents = np.arange(len(self.samples))
        return parents, tokens[alive], settled

    def rest(self) -> list[Settled]:
        return []

    def _choose(self, logits: np.ndarray) -> np.ndarray:
        options = self.options
        if options.temperature == 0:
            return logits.argmax(axis=-1)
        # Counted from the row's maximum down, a tiny temperature can overflow only into -inf.
        logits = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
        with np.errstate(over="ignore"):
            logits = logits / options.temperature
        if options.top_k is not None:
            logits = keep_top_k(logits, options.top_k)
        if options.top_p is not None:
            logits = keep_top_p(logits, options.top_p)
        return draw(logits, np.array([self.streams[sample].random() for sample in self.samples]))


class Greedy:
    """The likeliest token each time, for several texts that have nothing to do with each other: row i is sample i.

    A text that has ended leaves, and those that go on cost no more than themselves.

    Args:
        count: of the texts.
        end: the token that ends one.
    """

    def __init__(self, count: int, end: int):
        self.samples, self.end = np.arange(count), end

    def step(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[Settled]]:
        tokens = logits.argmax(axis=-1)
        settled = [Settled(sample, [token]) for sample, token in zip(self.samples.tolist(), tokens.tolist())]
        alive = np.flatnonzero(tokens != self.end)
        self.samples = self.samples[alive]
        return alive, tokens[alive], settled

    def rest(self) -> list[Settled]:
        return []


class BeamSearch:
    """Keep the `beams` likeliest unfinished texts at each step; settle the best finished ones at the end.

    A text's score is its log-probability divided by ((5 + length) / 6) ** length_penalty (Wu 2016, eq. 14).
    The length counts the end token, where there is one. The search ends when no unfinished text can still beat
    the finished ones that will be returned. Arguments as for `Sampler`.
    """

    def __init__(self, seen: np.ndarray, vocabulary: int, options: Options, ended: Ended):
        self.options = options
        self.ended = ended
        self.texts: list[list[int]] = [[]]
        self.totals = np.zeros(1)  # log-probability of each unfinished text
        self.finished: list[Settled] = []
        self.seen = _marked(seen, vocabulary)

    def step(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[Settled]]:
        logits = penalise_repetition(logits, self.seen, self.options.repetition_penalty)
        totals = self.totals[:, None] + log_softmax(logits)
        texts, parents, tokens = [], [], []
        # Candidates in falling order. A text that ends counts only while it ranks among the first `beams`.
        for rank, flat in enumerate(self._candidates(totals)):
            parent, token = divmod(int(flat), totals.shape[1])
            text = [*self.texts[parent], token]
            if not self.ended(text):
                texts.append(text)
                parents.append(parent)
                tokens.append(token)
            elif rank < self.options.beams:
                self._finish(text, totals[parent, token])
            if len(texts) == self.options.beams:
                break
        parents, tokens = np.array(parents, dtype=np.int64), np.array(tokens, dtype=np.int64)
        self.texts, self.totals = texts, totals[parents, tokens]
        self.seen = self.seen[parents]
        self.seen[np.arange(len(tokens)), tokens] = True
        if self._decided():
            self.texts, self.totals = [], self.totals[:0]
            return parents[:0], tokens[:0], []
        return parents, tokens, []

    def rest(self) -> list[Settled]:
        for text, total in zip(self.texts, self.totals):
            self._finish(text, total)
        best = self._best()
        return [Settled(place, text.tokens, text.score) for place, text in enumerate(best)]

    def _candidates(self, totals: np.ndarray):
        """Flat indices of the candidates from the likeliest down; few at first, then the others."""
        first = largest(totals.ravel(), 2 * self.options.beams)
        yield from first
        yield from largest(totals.ravel(), totals.size)[len(first) :]

    def _finish(self, text: list[int], total: float) -> None:
        self.finished.append(Settled(0, text, float(total) / self._length_factor(len(text))))

    def _best(self) -> list[Settled]:
        return sorted(self.finished, key=lambda text: -text.score)[: self.options.samples]

    def _decided(self) -> bool:
        best = self._best()
        if len(best) < self.options.samples or not len(self.totals):
            return not len(self.totals)
        # A log-probability only falls as a text grows, and is forgiven most at full length.
        reachable = self.totals.max() / self._length_factor(self.options.tokens)
        return best[-1].score >= reachable

    def _length_factor(self, length: int) -> float:
        return ((5 + length) / 6) ** self.options.length_penalty


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` largest of 1-d values, largest first; equal values by index."""
    if count < len(values):
        threshold = np.partition(values, len(values) - count)[len(values) - count]
        chosen = np.flatnonzero(values >= threshold)
    else:
        chosen = np.arange(len(values))
    return chosen[np.argsort(-values[chosen], kind="stable")][:count]


def _marked(tokens: np.ndarray, vocabulary: int) -> np.ndarray:
    """True for these tokens, `1 v`."""
    marked = np.zeros((1, vocabulary), dtype=bool)
    marked[0, tokens] = True
    return marked
