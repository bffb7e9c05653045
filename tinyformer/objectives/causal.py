"""Causal language modelling: predict each token from those before it (Radford 2018, §3.1).

An objective is two functions. `corrupt` turns stretches of text into what the model sees and what it should say, on
the host; `loss` measures how well it said it. The trainer does not know which objective it runs.

Read before: `tinyformer/models/decoder.py`. Read next: `tinyformer/training/step.py`.
"""

from __future__ import annotations

from typing import Any

from .. import fused
from ..backends import Generator
from ..tensor import Array, Tensor
from .batch import Batch


class CausalLM:
    """The objective of GPT."""

    extra_tokens = 1  # a stretch is one token longer than the context: each position's target is the next token

    def corrupt(self, tokens: Array, rng: Any = None) -> Batch:
        """The stretch without its last token is the input, without its first the target.

        Args:
            tokens: integers on the host, `b t+1`.
            rng: unused; nothing is random here.
        """
        return Batch(tokens[:, :-1], tokens[:, 1:])

    def loss(self, model: Any, batch: Batch, *, total: float | None = None, rng: Generator | None = None) -> Tensor:
        """Mean cross-entropy in nats per target token.

        Args:
            model: a decoder.
            batch: from `corrupt`.
            total: target tokens to divide by; default this batch's. Given the sum over several batches, their losses
                add up to the loss of all.
            rng: given in training, for dropout.
        """
        logits = model(batch.inputs, rng=rng)
        xp = logits.backend
        weights = None if batch.weights is None else xp.from_host(batch.weights)
        return fused.cross_entropy(logits, xp.from_host(batch.targets), weights, total=total or batch.tokens)
