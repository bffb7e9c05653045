"""Masked language modelling and next-sentence prediction at once: BERT as published (Devlin 2019, §3.1).

A row is two texts, A and B. Half of the time B is what follows A; else it is from another document, and the model
says which from what it knows at `<cls>`. Rows are made as in BERT's create_pretraining_data.py, with lines for
sentences. There, rows follow each other through a document; here each begins at a random sentence of the stretch that
it is given. B has a sentence before it in its document, whichever document that is, and ends where the row is full or
the document ends, so that lengths do not tell the two kinds of pairs apart. A document that is a single sentence does:
it can only be A, and B is random then, as in that script.

Read before: `masked.py`. Read next: `seq2seq.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from .. import backends
from ..backends import Generator
from ..errors import UsageError
from ..tensor import Array, Tensor, no_grad
from .batch import Batch
from .masked import MaskedLM, at_targets
from .objective import Prediction

SPECIAL = 3  # <cls> A <sep> B <sep>
SHORT = 0.1  # of the rows are shorter than the context, as the texts of later tasks are


class NextSentence(MaskedLM):
    """The objective of BERT.

    Args:
        vocabulary: number of ids, `v`.
        cls: id of the token before A.
        sep: id of the token after A, and after B.
        mask: id of the token that hides another.
        pad: id of the token that fills a row.
        line_ends: True for ids whose text contains a line's end, on the host, `v`.
        context: tokens in a row.

    Raises:
        UsageError: the context has no room for two texts.
    """

    name = "next-sentence"
    unreached = ()

    def __init__(
        self, *, vocabulary: int, cls: int, sep: int, mask: int, pad: int, line_ends: Array, context: int
    ) -> None:
        super().__init__(vocabulary=vocabulary, cls=cls, sep=sep, mask=mask, pad=pad)
        self.line_ends, self.context = line_ends, context
        if context < SPECIAL + 2:
            raise UsageError(f"next-sentence prediction needs a context of at least {SPECIAL + 2}, and has {context}")

    @classmethod
    def of(cls, tokenizer: Any, context: int, /, **options: Any) -> Self:
        """The objective for a tokenizer with the special tokens of an encoder; `line_ends` is an option."""
        return super().of(tokenizer, context, context=context, **options)

    def row_tokens(self, context: int) -> int:
        """Twice what a row shows: a random beginning, and a last sentence that is longer than there is room."""
        return 2 * (context - SPECIAL)

    def corrupt(self, rows: Sequence[tuple[Array, Array]], rngs: Sequence[Any]) -> Batch:
        """Make pairs of texts, and hide tokens in them.

        Args:
            rows: pairs of a stretch of one document and a stretch of another: integers on the host, each of one axis
                and not empty, without special tokens.
            rngs: one for each row.
        """
        xp = backends.of(rows[0][0])
        shape, dtype = (len(rows), self.context), rows[0][0].dtype
        tokens, segments = xp.full(shape, self.pad, dtype=dtype), xp.zeros(shape, dtype=dtype)
        labels = xp.zeros(len(rows), dtype=dtype)
        for row, ((stretch, other), rng) in enumerate(zip(rows, rngs, strict=True)):
            first, second, labels[row] = self._pair(stretch, other, rng)
            middle = 1 + first.shape[0]
            end = middle + 1 + second.shape[0]
            tokens[row, 0], tokens[row, middle], tokens[row, end] = self.cls, self.sep, self.sep
            tokens[row, 1:middle], tokens[row, middle + 1 : end] = first, second
            segments[row, middle + 1 : end + 1] = 1
        inputs, weights = self._hide(tokens, rngs)
        return Batch(inputs, tokens, weights, mask=tokens != self.pad, segments=segments, labels=labels)

    def _pair(self, stretch: Array, other: Array, rng: Any) -> tuple[Array, Array, int]:
        """A, B, and 0 where B follows A or 1 where it is random."""
        most = self.context - SPECIAL
        wanted = int(rng.integers(2, most + 1)) if rng.random() < SHORT else most
        stops = self._sentences(stretch, wanted, rng)
        # B needs a sentence of its own; one that is alone is A, and B has to be random.
        if len(stops) == 2:
            middle, random = stops[1], True
        else:
            middle, random = stops[int(rng.integers(1, len(stops) - 1))], rng.random() < 0.5
        first, second = stretch[stops[0] : middle], stretch[middle : stops[-1]]
        if random:
            start, *_, stop = self._sentences(other, wanted - first.shape[0], rng, inside=True)
            second = other[start:stop]
        return *_shorten(first, second, most, rng), int(random)

    def _sentences(self, tokens: Array, wanted: int, rng: Any, *, inside: bool = False) -> list[int]:
        """Where consecutive sentences begin and the last one ends, from a random one on, until they hold `wanted`.

        Where the text is too short for that, it is all there; or, if they shall lie `inside` it, with a sentence
        before them, what remains from a random one on.
        """
        xp, length = backends.of(tokens), tokens.shape[0]
        ends = xp.nonzero(xp.take(self.line_ends, tokens[:-1]))[0] + 1
        bounds = [0, *ends.tolist(), length]
        places = range(1 if inside and len(bounds) > 2 else 0, len(bounds) - 1)
        roomy = [place for place in places if length - bounds[place] >= wanted] or (places if inside else [0])
        first = roomy[int(rng.integers(len(roomy)))]
        last = next((i for i in range(first + 1, len(bounds)) if bounds[i] - bounds[first] >= wanted), len(bounds) - 1)
        return bounds[first : last + 1]

    def loss(self, model: Any, batch: Batch, *, whole: Batch | None = None, rng: Generator | None = None) -> Tensor:
        """Mean nats per target token, and mean nats per pair, added.

        Args:
            model: an encoder with a next-sentence head.
            batch: from `corrupt`.
            whole: the batch that this one is a part of, whose targets and pairs to divide by; default this one.
            rng: given in training, for dropout.

        Raises:
            UsageError: the model is no encoder, or has no such head.
        """
        self.check(model)
        whole = batch if whole is None else whole
        hidden = model.hidden(*batch.ids, **batch.keywords, rng=rng)
        tokens = at_targets(model, hidden, batch).nats(total=whole.tokens or 1.0, overwrite=True)
        return tokens + _judged(model, hidden, batch).nats(total=len(whole))

    @no_grad()
    def score(self, model: Any, batch: Batch) -> dict[str, float]:
        """Sums over the batch, without a gradient.

        Returns:
            `nats`, `tokens`, `asked` and `correct` of the hidden tokens; `pairs_nats`, `pairs` and `pairs_correct`.

        Raises:
            UsageError: the model is no encoder, or has no next-sentence head.
        """
        self.check(model)
        hidden = model.hidden(*batch.ids, **batch.keywords)
        tokens, pairs = at_targets(model, hidden, batch), _judged(model, hidden, batch)
        of_pairs = pairs.sums(pairs.right())
        return tokens.sums(tokens.right()) | {
            "pairs_nats": of_pairs["nats"],
            "pairs": of_pairs["tokens"],
            "pairs_correct": of_pairs["correct"],
        }

    def check(self, model: Any) -> None:
        """Raise a UsageError unless the model is an encoder with a next-sentence head."""
        super().check(model)
        if not model.config.next_sentence:
            raise UsageError("this encoder has no next-sentence head; train it on the objective masked")


def _judged(model: Any, hidden: Tensor, batch: Batch) -> Prediction:
    """Whether the model takes B for random, beside whether it is."""
    return Prediction(model.next_sentence_logits(hidden), batch.labels)


def _shorten(first: Array, second: Array, most: int, rng: Any) -> tuple[Array, Array]:
    """A pair of at most that many tokens: the longer one loses a token, at its front or its back, until they fit."""
    bounds = [[0, first.shape[0]], [0, second.shape[0]]]
    for at_front in rng.random(max(0, first.shape[0] + second.shape[0] - most)) < 0.5:
        (start, stop), (other_start, other_stop) = bounds
        longer = bounds[0 if stop - start > other_stop - other_start else 1]
        if at_front:
            longer[0] += 1
        else:
            longer[1] -= 1
    return first[slice(*bounds[0])], second[slice(*bounds[1])]
