"""What all objectives have in common: a corruption of text, and a loss that says how well it was undone.

`corrupt` turns rows of text into what a model sees and what it should say, on the host. `loss` measures how well it
said it, with a gradient; `score` adds up what is worth knowing about it, without one. The trainer does not know which
objective it runs.

Three rules make training repeatable, however its work is cut. A row is corrupted by random numbers of its own, so that
it does not depend on the rows beside it. The loss of part of a batch is divided by the targets of the whole, so that
parts add up. And scores are sums, which add up over batches.

Read before: `batch.py`. Read next: `causal.py`, then `masked.py`, `next_sentence.py`, `seq2seq.py` and
`span_corruption.py`; `tinyformer/training/step.py` calls them.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from .. import backends, fused
from ..backends import Generator
from ..errors import UsageError
from ..tensor import Array, Tensor, no_grad
from .batch import Batch


class Prediction(NamedTuple):
    """A model's answer beside the right one.

    Attributes:
        logits: `... v`.
        targets: integers on the host, `...`; or where the batch is.
        weights: of each target, likewise, `...`; None counts each once.
    """

    logits: Tensor
    targets: Array
    weights: Array | None = None

    def nats(self, *, total: float, smoothing: float = 0.0, overwrite: bool = False) -> Tensor:
        """The weighted cross-entropy divided by `total`, a scalar; see `functional.cross_entropy`.

        With `overwrite`, the logits may be gone afterwards: a large vocabulary's are the largest array of a step. Only
        those of a linear map, though, which does not need its result again for the gradient.
        """
        overwrite = overwrite and self.logits.node is not None and self.logits.node.name == "linear"
        xp = self.logits.backend
        weights = None if self.weights is None else xp.from_host(self.weights)
        targets = xp.from_host(self.targets)
        return fused.cross_entropy(self.logits, targets, weights, total=total, smoothing=smoothing, overwrite=overwrite)

    def right(self, *, without: Sequence[int] = ()) -> Array:
        """Where the most probable token is the target: truth values on the host, `...`.

        Args:
            without: ids that are no answer, however probable.
        """
        logits = self.logits.array
        xp = self.logits.backend
        if without:
            ids = xp.arange(logits.shape[-1])
            out = xp.any(ids[:, None] == xp.asarray(without, dtype=ids.dtype), axis=-1)
            logits = xp.where(out, -xp.inf, logits)
        return xp.to_host(xp.argmax(logits, axis=-1)) == self.targets

    def sums(self, right: Array) -> dict[str, float]:
        """`nats`, `tokens`, `asked` (all tokens) and `correct` (how many targets are `right`), each by weight."""
        if self.weights is None:
            tokens, correct = self.targets.size, right.sum()
        else:
            tokens, correct = self.weights.sum(), (self.weights * right).sum()
        nats, tokens = self.nats(total=1.0).item(), float(tokens)
        return {"nats": nats, "tokens": tokens, "asked": tokens, "correct": float(correct)}


class Objective(abc.ABC):
    """What a model is trained to do.

    Attributes:
        name: for users.
        mode: of the models that it trains.
        roles: of the special tokens that it needs, whose ids its constructor takes.
        overlap: tokens that rows share which are laid end to end.
        unreached: beginnings of the names of parameters that a model may have and the loss does not depend on.
        smoothing: of the targets in the loss; see `functional.cross_entropy`.
    """

    name: str
    mode: str
    roles: tuple[str, ...] = ()
    overlap = 0
    unreached: tuple[str, ...] = ()
    smoothing = 0.0

    @classmethod
    def of(cls, tokenizer: Any, context: int, /, **options: Any) -> Self:
        """The objective for a tokenizer's ids.

        Args:
            tokenizer: has `vocabulary_size`, `special_id(role)` and `sentinels`.
            context: of the model.
            options: of this objective's constructor, which a tokenizer does not tell.

        Raises:
            UsageError: the tokenizer lacks a token that the objective needs.
        """
        return cls(**{role: tokenizer.special_id(role) for role in cls.roles}, **options)

    def row_tokens(self, context: int) -> int:
        """How many tokens of a text a row takes that fills a context.

        Raises:
            UsageError: the context is too short or too long for this objective.
        """
        return context

    def target_shares(self, counts: Array, context: int) -> Array:
        """How common each id is among the targets.

        Args:
            counts: how often each occurs in the text that rows are made of, on the host, `v`.
            context: of the model, which decides how long rows are.

        Returns:
            Shares of 1, float64, `v`; all 0 where nothing was counted.
        """
        xp = backends.of(counts)
        return xp.astype(counts, xp.float64) / max(int(xp.sum(counts)), 1)

    def asked(self, batch: Batch) -> Array:
        """How much each target counts in the accuracy: float32, `b t`; as in the loss, unless it is no text."""
        xp = backends.of(batch.targets)
        return xp.ones(batch.targets.shape, dtype=xp.float32) if batch.weights is None else batch.weights

    def model(self, body: Any, init: Any) -> Any:
        """What is trained: the model itself, unless more parameters, from `init`, go with it."""
        return body

    @abc.abstractmethod
    def corrupt(self, rows: Sequence[Any], rngs: Sequence[Any]) -> Batch:
        """Make a batch of rows of text.

        Args:
            rows: integers on the host, each of one axis; or pairs of such.
            rngs: for each row a `numpy.random.Generator` of its own, from which all that is random in it is drawn.
        """

    def fixed(self, batch: Batch) -> Batch:
        """A batch for a device that replays its work: what differs between two of them is in the arrays alone.

        The shapes are those that most batches of a run have, and the loss is the same but for rounding.
        """
        return batch.normalised()

    def predict(self, model: Any, batch: Batch, *, rng: Generator | None = None) -> Prediction:
        """The model's logits for the targets.

        Raises:
            UsageError: the model is of another mode.
        """
        self.check(model)
        return Prediction(model(*batch.ids, **batch.keywords, rng=rng), batch.targets, batch.weights)

    def loss(self, model: Any, batch: Batch, *, whole: Batch | None = None, rng: Generator | None = None) -> Tensor:
        """Mean cross-entropy in nats per target token; 0 where there is no target.

        Args:
            model: of the mode of this objective.
            batch: from `corrupt`.
            whole: the batch that this one is a part of, whose targets to divide by; default this one. The losses of
                its parts add up to its own.
            rng: given in training, for dropout.

        Raises:
            UsageError: the model is of another mode.
        """
        total = (batch if whole is None else whole).tokens or 1.0
        return self.predict(model, batch, rng=rng).nats(total=total, smoothing=self.smoothing, overwrite=True)

    @no_grad()
    def score(self, model: Any, batch: Batch) -> dict[str, float]:
        """What is worth knowing about the model's answers: sums over the batch, without a gradient.

        Returns:
            `nats`, without smoothing; `tokens`, the targets; `asked`, those that count in the accuracy; `correct`,
            those of them that are the most probable token. Each by weight.

        Raises:
            UsageError: the model is of another mode.
        """
        prediction = self.predict(model, batch)
        return prediction.sums(prediction.right())

    def check(self, model: Any) -> None:
        """Raise a UsageError unless the model is of the mode of this objective."""
        if model.config.mode != self.mode:
            raise UsageError(
                f"the objective {self.name} is for models of mode {self.mode}, and this one is of mode "
                f"{model.config.mode}; give such a model, or an objective of its mode"
            )
