"""Masked language modelling: hide some tokens, and predict them from both sides (Devlin 2019, §3.1).

A token is hidden by `<mask>` four times of five. Else the model would see `<mask>` in training and nowhere later, so
one hidden token in ten stays as it is and one becomes a random token, and the model has to doubt every token.

Rows are cut from a text in which each document stands as `<cls> text <sep>`, wherever the cuts fall. A document that
was cut gets a new `<cls>` or `<sep>` at the cut. Several short documents share a row, numbered and with positions of
their own, and do not see each other; so each is read as if it stood alone.

Read before: `objective.py`, `tinyformer/models/encoder.py`. Read next: `next_sentence.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

from .. import backends, ops
from ..backends import Generator
from ..tensor import Array, Tensor
from .batch import Batch, pad_rows
from .objective import Objective, Prediction

SHARE = 0.15  # of the tokens are to be predicted
MASKED, KEPT = 0.8, 0.1  # of these; the others become random ids


class MaskedLM(Objective):
    """The objective of RoBERTa (Liu 2019): tokens are hidden anew each time a row comes.

    Args:
        vocabulary: number of ids, `v`.
        cls: id of the token before a document.
        sep: id of the token after one.
        mask: id of the token that hides another.
        pad: id of the token that fills a row.
    """

    name, mode = "masked", "encoder"
    unreached = ("pooler.", "next_sentence.")
    roles = ("cls", "sep", "mask", "pad")

    def __init__(self, *, vocabulary: int, cls: int, sep: int, mask: int, pad: int) -> None:
        self.vocabulary, self.cls, self.sep, self.mask, self.pad = vocabulary, cls, sep, mask, pad

    @classmethod
    def of(cls, tokenizer: Any, context: int, /, **options: Any) -> Self:
        """The objective for a tokenizer with the special tokens of an encoder."""
        return super().of(tokenizer, context, vocabulary=tokenizer.vocabulary_size, **options)

    def target_shares(self, counts: Array, context: int) -> Array:
        """How common each id is among the targets, which special tokens never are; see `Objective.target_shares`."""
        ordinary = backends.of(counts).asarray(counts, copy=True)
        for special in (self.cls, self.sep, self.mask, self.pad):
            ordinary[special] = 0
        return super().target_shares(ordinary, context)

    def corrupt(
        self, rows: Sequence[Array], rngs: Sequence[Any] = (), *, hidden: Sequence[Array] | None = None
    ) -> Batch:
        """Mend the documents that the row's ends cut, and hide tokens.

        Args:
            rows: integers on the host, stretches of a text in which documents stand as `<cls> text <sep>`.
            rngs: one for each row; none where `hidden` is given.
            hidden: for each row, True where `<mask>` shall stand; default drawn.
        """
        tokens, _ = pad_rows([self._mend(row) for row in rows], self.pad)
        xp = backends.of(tokens)
        real, begins = tokens != self.pad, tokens == self.cls
        documents = xp.cumulative_sum(begins, axis=1, dtype=tokens.dtype) * real
        # The place of each token less that of the last <cls> before it, in all rows laid end to end.
        flat = xp.reshape(begins, (-1,))
        starts = xp.concat([xp.asarray([0]), xp.nonzero(flat)[0]])
        places = xp.arange(flat.shape[0]) - xp.take(starts, xp.cumulative_sum(flat, dtype=starts.dtype))
        positions = xp.astype(xp.reshape(places, tokens.shape), tokens.dtype) * real
        if hidden is None:
            inputs, weights = self._hide(tokens, rngs)
        else:
            chosen, _ = pad_rows(hidden, False)
            inputs, weights = xp.where(chosen, self.mask, tokens), xp.astype(chosen, xp.float32)
        return Batch(inputs, tokens, weights, mask=documents, positions=positions)

    def _mend(self, row: Array) -> Array:
        """A row that begins with `<cls>` and ends with `<sep>`; a place that no document needs becomes padding."""
        mended = backends.of(row).asarray(row, copy=True)
        if row[-1] != self.sep:
            mended[-1] = self.pad if row[-1] == self.cls else self.sep
        if row[0] != self.cls:
            mended[0] = self.pad if row.shape[0] > 1 and row[1] == self.cls else self.cls
        return mended

    def _hide(self, tokens: Array, rngs: Sequence[Any]) -> tuple[Array, Array]:
        """The tokens with some of them hidden, and which: weights, float32, `b t`.

        The number counts `<cls>` and `<sep>` in the row's length, as BERT's create_pretraining_data.py does, but only
        other tokens are hidden.
        """
        xp = backends.of(tokens)
        inputs, weights = xp.asarray(tokens, copy=True), xp.zeros(tokens.shape, dtype=xp.float32)
        padding = tokens == self.pad
        special = padding | (tokens == self.cls) | (tokens == self.sep)
        for row, rng in zip(range(tokens.shape[0]), rngs, strict=True):
            ordinary = xp.nonzero(~special[row])[0]
            count = max(1, round(SHARE * int(xp.sum(~padding[row]))))
            hidden = rng.permutation(ordinary)[:count]
            chance, others = rng.random(hidden.size), rng.integers(0, self.vocabulary, hidden.size)
            unmasked = xp.where(chance < MASKED + KEPT, tokens[row, hidden], others)
            inputs[row, hidden] = xp.where(chance < MASKED, self.mask, unmasked)
            weights[row, hidden] = 1
        return inputs, weights

    def fixed(self, batch: Batch) -> Batch:
        """With the places of the hidden tokens, as many in each row; see `Objective.fixed`."""
        xp, whole = backends.of(batch.targets), batch.normalised()
        hidden = whole.weights > 0
        count = max(1, int(xp.max(xp.sum(hidden, axis=1))))
        places = xp.argsort(~hidden, axis=1, stable=True)[:, :count]  # the hidden ones come first, in their order
        chosen = {name: xp.take_along_axis(getattr(whole, name), places, axis=1) for name in ("targets", "weights")}
        return dataclasses.replace(whole, places=xp.astype(places, batch.targets.dtype), **chosen)

    def predict(self, model: Any, batch: Batch, *, rng: Generator | None = None) -> Prediction:
        """The model's logits where there is a target: `n v`.

        Raises:
            UsageError: the model is of another mode.
        """
        self.check(model)
        return at_targets(model, model.hidden(*batch.ids, **batch.keywords, rng=rng), batch)


def at_targets(model: Any, hidden: Tensor, batch: Batch) -> Prediction:
    """The logits of the places that have a target; the others, six of seven, are not worth the largest product.

    Args:
        model: an encoder.
        hidden: what its last block gives, `b t d`.
        batch: with weights, `b t`; or with places, `b n`.
    """
    if batch.places is not None:
        xp, (rows, length, width) = hidden.backend, hidden.shape
        starts = xp.arange(0, rows * length, length, dtype=xp.int64)[:, None]
        flat = ops.reshape(hidden, shape=(rows * length, width))
        chosen = ops.take(flat, starts + xp.astype(xp.from_host(batch.places), xp.int64))
        return Prediction(model.score(chosen), batch.targets, batch.weights)
    host = backends.of(batch.weights)
    targets, weights = host.reshape(batch.targets, (-1,)), host.reshape(batch.weights, (-1,))
    places = host.nonzero(weights)[0]
    if not places.shape[0]:
        places = host.arange(1)  # whose weight is 0: kernels need a row
    chosen = ops.take(ops.reshape(hidden, shape=(-1, hidden.shape[-1])), hidden.backend.from_host(places))
    return Prediction(model.score(chosen), host.take(targets, places), host.take(weights, places))
