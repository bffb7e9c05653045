"""How likely a decoder thinks each of some answers, given a prompt: log P(answer | prompt), by the chain rule.

Prompts that were built from the same examples begin alike. What they share is read once; its keys and values then serve
all rows. Rows of a batch end at different places, and what fills them up stands behind, where no position looks.

Read before: `template.py`, `tinyformer/nn/attention.py` (the cache). Read next: `candidates.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from .. import backends
from ..analysis.machine import usable_cores
from ..generation.filters import log_softmax
from ..generation.state import finite
from ..tensor import no_grad

TOKENS_AT_ONCE = 4096
LOGITS_AT_ONCE = 1 << 24  # 64 MiB in float32


@dataclass(frozen=True)
class Question:
    """A prompt and the answers to compare, as ids: the prompt 1-d with at least one, answers 1-d each."""

    prompt: np.ndarray
    answers: Sequence[np.ndarray]

    @property
    def length(self) -> int:
        """Tokens that a model has to read: the last one of an answer is only predicted."""
        return len(self.prompt) + max(map(len, self.answers)) - 1


def log_likelihoods(
    model,
    questions: Sequence[Question],
    *,
    vocabulary: int | None = None,
    done: Callable[[float], None] = lambda share: None,
) -> list[np.ndarray]:
    """Log-probabilities of the answers to each question, in nats: the sum over an answer's tokens.

    Args:
        model: a decoder.
        questions: each with prompt and answers no longer than the context together.
        vocabulary: how many ids have a meaning, where the model has room for more.
        done: told after each batch what share of the work is done.

    Returns:
        Float64, of each question one number per answer.

    Raises:
        TinyformerError: the model's output is not finite.
    """
    shared = _shared([question.prompt for question in questions])
    rows = [row for number, question in enumerate(questions) for row in _rows(number, question, shared)]
    rows.sort(key=lambda row: len(row.ids))  # neighbours share a batch, so that little is filled up
    totals = [np.zeros(len(question.answers)) for question in questions]
    with no_grad(), _all_cores():
        cache = None
        if shared:
            cache = model.new_cache(1)
            model(questions[0].prompt[None, :shared], cache=cache, last_only=True)
        read = 0
        for batch in _batches(rows, model.config.vocabulary):
            ids = np.zeros((len(batch), len(batch[-1].ids)), dtype=np.int64)
            for place, row in enumerate(batch):
                ids[place, : len(row.ids)] = row.ids
            if cache is not None:
                cache.shorten(shared)
                cache.select(np.zeros(len(batch), dtype=np.int64))
            logits = model(ids, cache=cache).array[:, :, :vocabulary]
            _add(totals, questions, batch, logits)
            read += len(batch)
            done(read / len(rows))
    return totals


@dataclass(frozen=True)
class _Row:
    """What a model reads for some answers to one question: the rest of the prompt, and all but the last of the longest.

    Attributes:
        question: which.
        answers: which of its answers; each but for its last token is the beginning of the longest of them.
        ids: to read.
        first: the place in the row whose logits are of an answer's first token.
    """

    question: int
    answers: list[int]
    ids: np.ndarray
    first: int


def _rows(number: int, question: Question, shared: int) -> Iterator[_Row]:
    """As few rows as serve all answers: those of one token need nothing but the prompt."""
    rest = question.prompt[shared:]
    read = [tuple(answer[:-1].tolist()) for answer in question.answers]
    left = sorted(range(len(read)), key=lambda which: -len(read[which]))
    while left:
        longest = read[left[0]]
        served = [which for which in left if longest[: len(read[which])] == read[which]]
        left = [which for which in left if which not in served]
        yield _Row(number, served, np.concatenate([rest, np.array(longest, dtype=np.int64)]), len(rest) - 1)


def _shared(prompts: Sequence[np.ndarray]) -> int:
    """How many tokens all prompts begin with, leaving at least one of each."""
    most = min(map(len, prompts)) - 1
    alike = np.ones(most, dtype=bool)
    for prompt in prompts:
        alike &= prompt[:most] == prompts[0][:most]
    return most if alike.all() else int(alike.argmin())


def _batches(rows: Sequence[_Row], vocabulary: int) -> Iterator[Sequence[_Row]]:
    """Neighbours that together, filled up to the longest, are not too large. Rows come by length."""
    most, start = max(1, min(TOKENS_AT_ONCE, LOGITS_AT_ONCE // vocabulary)), 0
    for stop in range(1, len(rows) + 1):
        if stop == len(rows) or (stop + 1 - start) * len(rows[stop].ids) > most:
            yield rows[start:stop]
            start = stop


def _add(totals: list[np.ndarray], questions: Sequence[Question], batch: Sequence[_Row], logits) -> None:
    """Add up what a batch says. Only logits that are asked for come to the host."""
    asked = [
        (place, row.first + step, row.question, which, token)
        for place, row in enumerate(batch)
        for which in row.answers
        for step, token in enumerate(questions[row.question].answers[which].tolist())
    ]
    xp, width = backends.of(logits), logits.shape[1]
    flat = xp.reshape(logits, (logits.shape[0] * width, logits.shape[2]))
    places, back = np.unique([place * width + step for place, step, *_ in asked], return_inverse=True)
    known = log_softmax(finite(xp.to_host(xp.take(flat, xp.from_host(places), axis=0))))
    for which_place, (_, _, question, which, token) in zip(back, asked):
        totals[question][which] += known[which_place, token]


def _all_cores() -> AbstractContextManager[None]:
    return backends.get("numpy").sharing(usable_cores())
