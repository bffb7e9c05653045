"""The encoder-only transformer: BERT.

Every position sees all others, so what is known of a token comes from both sides of it. The model cannot write text
from left to right; it fills in tokens that were hidden (Devlin 2019, §3.1), and its hidden states serve other tasks.

Read before: `decoder.py`. Read next: `encoder_decoder.py`, `tinyformer/objectives/masked.py`.
"""

from __future__ import annotations

from typing import Any

from .. import nn, ops
from ..backends import Generator
from ..tensor import Tensor
from .config import ModelConfig
from .head import Head
from .stack import Stack, checked_ids, token_embedding


class Encoder(nn.Module):
    """A masked language model.

    Args:
        config: its shape.
        init: makes the parameters.
    """

    def __init__(self, config: ModelConfig, init: nn.Initializer) -> None:
        self.config = config
        self.tokens = token_embedding(config, init)
        self.stack = Stack(config, init, layers=config.layers, causal=False)
        self.head = Head(config, init)
        self.pooler = nn.Linear(config.width, config.width, init) if config.next_sentence else None
        self.next_sentence = nn.Linear(config.width, 2, init) if config.next_sentence else None

    def __call__(
        self,
        ids: Any,
        *,
        mask: Any = None,
        segments: Any = None,
        positions: Any = None,
        rng: Generator | None = None,
    ) -> Tensor:
        """Score every token of the vocabulary at each position.

        Args:
            ids: integers in [0, v), `b t`, on the host or the model's backend.
            mask: True where a token is real and may be looked at, `b t`; None where all are. Numbers instead of truth
                values tell documents apart that share a row: a token sees its own only, and 0 is padding.
            segments: of the tokens, `b t`; None for all 0.
            positions: of the tokens, `b t`, where they restart within a row; None for 0, 1, 2, ...
            rng: given in training, for dropout.

        Returns:
            Logits, `b t v`.

        Raises:
            IndexError: an id is outside the vocabulary.
            TypeError: the ids are not integers.
            ValueError: they have not two axes, or there are more than learned positions.
        """
        return self.score(self.hidden(ids, mask=mask, segments=segments, positions=positions, rng=rng))

    def hidden(
        self,
        ids: Any,
        *,
        mask: Any = None,
        segments: Any = None,
        positions: Any = None,
        rng: Generator | None = None,
    ) -> Tensor:
        """What the model knows of each position, `b t d`: before the head. Arguments as for a call."""
        x = self.tokens(checked_ids(self.tokens.weight.backend, ids))
        return self.stack(x, mask=mask, segments=segments, positions=positions, rng=rng)

    def score(self, x: Tensor) -> Tensor:
        """Logits `... v` of hidden states `... d`."""
        return self.head(x, self.tokens)

    def next_sentence_logits(self, hidden: Tensor) -> Tensor:
        """Whether the second segment follows the first, `b 2`: 0 that it does, 1 that it is from elsewhere.

        Args:
            hidden: `b t d`; only the first position, of `<cls>`, is read, through BERT's pooler.

        Raises:
            ValueError: the model has no such head.
        """
        if self.pooler is None or self.next_sentence is None:
            raise ValueError("this encoder has no next-sentence head (`next_sentence` of its configuration is False)")
        return self.next_sentence(ops.tanh(self.pooler(hidden[:, 0])))
