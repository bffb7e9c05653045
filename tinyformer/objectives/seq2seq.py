"""Sequence to sequence: write the target, given the source (Sutskever 2014; Vaswani 2017).

The decoder's inputs are the target itself, one place later and begun with the padding token, as T5 begins them. So
every place predicts its token from the true ones before it ("teacher forcing"), and one pass trains them all. Both
texts are closed with the end token: with it the model says that it has finished.

Read before: `objective.py`, `tinyformer/models/encoder_decoder.py`. Read next: `span_corruption.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import backends
from ..tensor import Array, no_grad
from .batch import Batch, pad_rows
from .objective import Objective


class Seq2Seq(Objective):
    """The objective of translation and summarisation.

    Args:
        end: id of the token that closes a source and a target.
        pad: id of the token that fills a row, and begins the decoder's inputs.
        smoothing: share of a target's probability that the loss spreads over the vocabulary (Vaswani 2017, §5.4).
    """

    name, mode = "seq2seq", "encoder-decoder"
    roles = ("end", "pad")

    def __init__(self, *, end: int, pad: int, smoothing: float = 0.0) -> None:
        self.end, self.pad, self.smoothing = end, pad, smoothing

    def corrupt(self, rows: Sequence[tuple[Array, Array]], rngs: Sequence[Any] = ()) -> Batch:
        """Close and pad pairs of texts.

        Args:
            rows: pairs of a source and a target: integers on the host, each of one axis, without an end token.
            rngs: unused; nothing is random here.
        """
        return teacher_forced(*zip(*rows, strict=True), end=self.end, pad=self.pad)

    @no_grad()
    def score(self, model: Any, batch: Batch) -> dict[str, float]:
        """Sums over the batch, without a gradient or smoothing.

        Returns:
            `nats`, `tokens`, `asked` and `correct` of the target tokens, with their ends; `sequences`, the rows;
            `exact`, those that are right at each place, which are the ones that greedy decoding writes without a fault.

        Raises:
            UsageError: the model is no encoder-decoder.
        """
        prediction = self.predict(model, batch)
        right = prediction.right()
        exact = right if batch.weights is None else right | (batch.weights == 0)
        return prediction.sums(right) | {"sequences": float(len(batch)), "exact": float(exact.all(axis=1).sum())}


def teacher_forced(sources: Sequence[Array], targets: Sequence[Array], *, end: int, pad: int) -> Batch:
    """A batch in which a decoder is given each target one place later than it should say it.

    Args:
        sources: integers on the host, each of one axis.
        targets: as many, likewise.
        end: id of the token that closes both.
        pad: id of the token that fills them, and begins the decoder's inputs.
    """
    xp = backends.of(sources[0])
    ends = xp.asarray([end], dtype=sources[0].dtype)
    inputs, mask = pad_rows([xp.concat([source, ends]) for source in sources], pad)
    answers, real = pad_rows([xp.concat([target, ends]) for target in targets], pad)
    begins = xp.full((answers.shape[0], 1), pad, dtype=answers.dtype)
    weights = None if real is None else xp.astype(real, xp.float32)
    decoder_inputs = xp.concat([begins, answers[:, :-1]], axis=1)
    return Batch(inputs, answers, weights, mask=mask, decoder_inputs=decoder_inputs)
