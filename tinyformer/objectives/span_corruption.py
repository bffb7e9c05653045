"""Span corruption: write the stretches of a text that were taken out of it (Raffel 2020, §3.1.4 and §3.3).

Each stretch leaves a sentinel in the input, a different one each time; the target names each sentinel and what stood
there, so it is short, and so is the input. With "I love this red car" and "love" and "red car" taken out:

    input   I <extra_id_0> this <extra_id_1> </s>
    target  <extra_id_0> love <extra_id_1> red car </s>

All is as in T5's preprocessors.py: how much is taken out, in how many spans, and that all ways to do so are equally
likely. A text begins with a span that stays and ends with one that is taken out. (There is one difference. The share
of the text is computed in double precision; T5's in single precision takes one token more of some lengths, of 190 as
the first.)

Read before: `seq2seq.py`. Read next: `tinyformer/training/step.py`.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any, Self

from .. import backends
from ..errors import UsageError
from ..tensor import Array, no_grad
from .batch import Batch
from .objective import Objective
from .seq2seq import teacher_forced

SHORTEST = 2  # tokens of which one can stay and one be taken out


class SpanCorruption(Objective):
    """The objective of T5.

    Args:
        sentinels: their ids, in the order in which they mark spans.
        end: id of the token that closes inputs and targets.
        pad: id of the token that fills a row, and begins the decoder's inputs.
        density: share of the tokens that are taken out.
        mean_span: tokens in a span, on average.

    Raises:
        UsageError: there is no sentinel.
    """

    name, mode = "span-corruption", "encoder-decoder"
    roles = ("end", "pad")

    def __init__(
        self, *, sentinels: Sequence[int], end: int, pad: int, density: float = 0.15, mean_span: float = 3.0
    ) -> None:
        self.sentinels, self.end, self.pad = sentinels, end, pad
        self.density, self.mean_span = density, mean_span
        if not len(sentinels):
            raise UsageError(
                "the tokenizer has no <extra_id_0>, which span corruption needs; use the objective seq2seq"
            )

    @classmethod
    def of(cls, tokenizer: Any, context: int, /, **options: Any) -> Self:
        """The objective for a tokenizer with the special tokens of an encoder-decoder."""
        return super().of(tokenizer, context, sentinels=tokenizer.sentinels, **options)

    def row_tokens(self, context: int) -> int:
        """The text whose inputs, with their end token, fill a context.

        Raises:
            UsageError: the context is too short, or there are too few sentinels for one so long.
        """
        raw, _ = self.raw_length(context)
        self._check_sentinels(raw)
        return raw

    def raw_length(self, inputs_length: int) -> tuple[int, int]:
        """The longest text whose inputs and targets have at most that many tokens, and how many targets it has.

        The lengths of T5's `random_spans_helper`; both count their end token.

        Raises:
            UsageError: no text is so short.
        """
        texts = range(SHORTEST, 2 * inputs_length + 1)  # what is taken out or what stays is half of a text
        count = bisect.bisect_right(texts, inputs_length, key=lambda length: max(self._lengths(length)))
        if not count:
            raise UsageError(
                f"span corruption needs a context of at least {max(self._lengths(SHORTEST))}, and has {inputs_length}"
            )
        raw = texts[count - 1]
        return raw, self._lengths(raw)[1]

    def target_shares(self, counts: Array, context: int) -> Array:
        """How common each id is among the targets: the text's share as in the text, and each mark once in a row."""
        raw, targets = self.raw_length(context)
        noise, spans = self._counts(raw)
        shares = super().target_shares(counts, context) * (noise / targets)
        for mark in (self.end, *self.sentinels[:spans]):
            shares[mark] = 1 / targets
        return shares

    def asked(self, batch: Batch) -> Array:
        """How much each target counts in the accuracy: sentinels and the end, which are no text, do not."""
        xp = backends.of(batch.targets)
        marks = xp.asarray([self.end, *self.sentinels], dtype=batch.targets.dtype)
        return super().asked(batch) * ~xp.any(batch.targets[..., None] == marks, axis=-1)

    @no_grad()
    def score(self, model: Any, batch: Batch) -> dict[str, float]:
        """Sums over the batch, without a gradient; see `Objective.score`.

        What is asked is the text in the targets: which of all tokens of text stands there.
        """
        prediction, asked = self.predict(model, batch), self.asked(batch)
        right = asked * prediction.right(without=[self.end, self.pad, *self.sentinels])
        return prediction.sums(right) | {"asked": float(asked.sum()), "correct": float(right.sum())}

    def _lengths(self, length: int) -> tuple[int, int]:
        """Tokens of inputs and targets, with their end token."""
        noise, spans = self._counts(length)
        return length - noise + spans + 1, noise + spans + 1

    def _counts(self, length: int) -> tuple[int, int]:
        """How many tokens of a text are taken out, and in how many spans."""
        noise = min(max(round(length * self.density), 1), length - 1)
        return noise, min(max(round(noise / self.mean_span), 1), length - noise)

    def _check_sentinels(self, length: int) -> None:
        """Raise a UsageError where a text of that length has more spans than there are sentinels."""
        known = len(self.sentinels)
        if length < SHORTEST or self._counts(length)[1] <= known:
            return
        longest = bisect.bisect_right(range(length), known, lo=SHORTEST, key=lambda shorter: self._counts(shorter)[1])
        inputs = max(self._lengths(longest - 1))
        raise UsageError(
            f"a text of {length} tokens has {self._counts(length)[1]} spans, and the tokenizer {known} sentinels; "
            f"use a context of at most {inputs}"
        )

    def noise_mask(self, length: int, rng: Any) -> Array:
        """Which tokens of a text are taken out: truth values on the host, of that length.

        Args:
            length: at least 1; of a single token nothing is taken out.
            rng: draws the spans.
        """
        enough = max(length, SHORTEST)
        noise, spans = self._counts(enough)
        taken, kept = _random_parts(noise, spans, rng), _random_parts(enough - noise, spans, rng)
        xp = backends.of(taken)
        in_turn = xp.reshape(xp.stack([kept, taken], axis=1), (-1,))
        return xp.repeat(xp.arange(2 * spans) % 2 == 1, in_turn)[:length]

    def corrupt(
        self, rows: Sequence[Array], rngs: Sequence[Any] = (), *, hidden: Sequence[Array] | None = None
    ) -> Batch:
        """Take spans out of texts.

        Args:
            rows: integers on the host, each of one axis.
            rngs: one for each row; none where `hidden` is given.
            hidden: for each row, True where a token is taken out; default drawn.

        Raises:
            UsageError: a row has more spans than there are sentinels.
        """
        if hidden is None:
            self._check_sentinels(max(row.shape[0] for row in rows))
            hidden = [self.noise_mask(row.shape[0], rng) for row, rng in zip(rows, rngs, strict=True)]
        inputs = [mark_spans(row, mask, self.sentinels) for row, mask in zip(rows, hidden)]
        targets = [self._target(row, mask) for row, mask in zip(rows, hidden)]
        return teacher_forced(inputs, targets, end=self.end, pad=self.pad)

    def _target(self, row: Array, hidden: Array) -> Array:
        """Each span after its sentinel, which stands where the text before it stood, if there was any."""
        first = int(hidden[0])  # a span at the very beginning has none before it; no drawn one is there
        marked = mark_spans(row, ~hidden, self.sentinels[first:])
        xp = backends.of(row)
        return xp.concat([xp.asarray(self.sentinels[:first], dtype=row.dtype), marked])


def mark_spans(tokens: Array, hidden: Array, sentinels: Sequence[int]) -> Array:
    """The tokens with each run of hidden ones replaced by a sentinel, the first run by the first sentinel.

    Args:
        tokens: integers on the host, of one axis.
        hidden: truth values, of the same shape.
        sentinels: their ids.

    Raises:
        UsageError: there are more runs than sentinels.
    """
    xp = backends.of(tokens)
    begins = hidden & ~xp.concat([xp.zeros(1, dtype=hidden.dtype), hidden[:-1]])
    runs = int(xp.sum(begins))
    if runs > len(sentinels):
        raise UsageError(f"{runs} spans are taken out, and there are {len(sentinels)} sentinels; take out fewer spans")
    number = xp.cumulative_sum(begins, dtype=xp.int64, include_initial=True)[:-1]
    marked = xp.where(begins, xp.take(xp.asarray([*sentinels, 0], dtype=tokens.dtype), number), tokens)
    return marked[begins | ~hidden]


def _random_parts(total: int, count: int, rng: Any) -> Array:
    """Positive integers that add up to a total, `count` of them; all ways to do so are equally likely."""
    cuts = 1 + rng.choice(total - 1, count - 1, replace=False)
    xp = backends.of(cuts)
    ends = [xp.asarray([end], dtype=cuts.dtype) for end in (0, total)]
    bounds = xp.concat([ends[0], xp.sort(cuts), ends[1]])
    return bounds[1:] - bounds[:-1]
