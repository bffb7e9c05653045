"""The decoder-only transformer: GPT.

A causal stack over the embedded tokens, and an output layer that scores every token of the vocabulary as the next one
(Radford 2018, §3.1).

Read before: `stack.py`, `head.py`. Read next: `encoder.py`, `tinyformer/objectives/causal.py`.
"""

from __future__ import annotations

from typing import Any

from .. import nn
from ..backends import Generator
from ..tensor import Tensor
from .config import ModelConfig
from .head import Head
from .stack import Stack, checked_ids, token_embedding


class Decoder(nn.Module):
    """A causal language model.

    Args:
        config: its shape.
        init: makes the parameters.
    """

    def __init__(self, config: ModelConfig, init: nn.Initializer) -> None:
        self.config = config
        self.tokens = token_embedding(config, init)
        self.stack = Stack(config, init, layers=config.layers, causal=True)
        self.head = Head(config, init)

    def __call__(
        self,
        ids: Any,
        *,
        mask: Any = None,
        segments: Any = None,
        positions: Any = None,
        cache: nn.Cache | None = None,
        rng: Generator | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Score every token as the next one, after each position.

        Args:
            ids: integers in [0, v), `b t`, on the host or the model's backend.
            mask: True where a token is real and may be looked at, `b t`; None where all are. Numbers instead of truth
                values tell documents apart that share a row: a token sees its own only, and 0 is padding. With a
                cache, over the positions that it holds and then those of `ids`.
            segments: of the tokens, `b t`; None for all 0.
            positions: of the tokens, `b t`, where they restart within a row; None for 0, 1, 2, ...
            cache: from `new_cache`; `ids` continue what it has read, and are added to it. Under `no_grad` only.
            rng: given in training, for dropout.
            last_only: score only what follows the last position, which is all that generating text needs.

        Returns:
            Logits, `b t v`, or `b 1 v` of the last position.

        Raises:
            IndexError: an id is outside the vocabulary.
            TypeError: the ids are not integers.
            ValueError: they have not two axes, or there are more than learned positions, or than the cache holds.
        """
        x = self.hidden(ids, mask=mask, segments=segments, positions=positions, cache=cache, rng=rng)
        return self.score(x[:, -1:] if last_only else x)

    def hidden(
        self,
        ids: Any,
        *,
        mask: Any = None,
        segments: Any = None,
        positions: Any = None,
        cache: nn.Cache | None = None,
        rng: Generator | None = None,
    ) -> Tensor:
        """What the model knows after each position, `b t d`: before the head. Arguments as for a call."""
        x = self.tokens(checked_ids(self.tokens.weight.backend, ids))
        return self.stack(x, mask=mask, segments=segments, positions=positions, cache=cache, rng=rng)

    def score(self, x: Tensor) -> Tensor:
        """Logits `... v` of hidden states `... d`."""
        return self.head(x, self.tokens)

    def new_cache(self, batch: int) -> nn.Cache:
        """An empty key/value cache for `batch` sequences of up to the context's length."""
        return self.stack.new_cache(batch)
