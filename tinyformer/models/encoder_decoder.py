"""The encoder-decoder transformer: the first one (Vaswani 2017), and T5.

The encoder reads the source both ways, once. The decoder writes the target token by token: it is causal, and each of
its blocks also looks at all that the encoder made of the source.

Read before: `encoder.py`. Read next: `tinyformer/objectives/span_corruption.py`.
"""

from __future__ import annotations

from typing import Any

from .. import nn
from ..backends import Generator
from ..tensor import Tensor
from .config import ModelConfig
from .head import Head
from .stack import Stack, checked_ids, token_embedding


class EncoderDecoder(nn.Module):
    """A model of a target given a source.

    Args:
        config: its shape.
        init: makes the parameters.
    """

    def __init__(self, config: ModelConfig, init: nn.Initializer) -> None:
        self.config = config
        self.tokens = token_embedding(config, init)
        self.encoder = Stack(config, init, layers=config.layers, causal=False)
        self.decoder = Stack(config, init, layers=config.decoder_layers or config.layers, causal=True, cross=True)
        self.head = Head(config, init)

    def __call__(
        self,
        source_ids: Any,
        target_ids: Any,
        *,
        mask: Any = None,
        segments: Any = None,
        rng: Generator | None = None,
    ) -> Tensor:
        """Score every token as the target's next one, after each of its positions.

        Args:
            source_ids: integers in [0, v), `b s`, on the host or the model's backend.
            target_ids: what the decoder has written so far, `b t`: a start token, then the target.
            mask: True where a token of the source is real, `b s`; None where all are. Of numbers, 0 is padding, and
                tokens of the source see each other only if theirs are equal; the target sees all that is real. What is
                padded at the end of a target needs no mask, for no position before looks at it.
            segments: of the source, `b s`; None for all 0.
            rng: given in training, for dropout.

        Returns:
            Logits, `b t v`.

        Raises:
            IndexError: an id is outside the vocabulary.
            TypeError: the ids are not integers.
            ValueError: they have not two axes, or there are more than learned positions.
        """
        memory = self.encode(source_ids, mask=mask, segments=segments, rng=rng)
        return self.decode(target_ids, memory, mask=mask, rng=rng)

    def encode(
        self, source_ids: Any, *, mask: Any = None, segments: Any = None, rng: Generator | None = None
    ) -> Tensor:
        """What the decoder looks at, `b s d`. Arguments as for a call."""
        x = self.tokens(checked_ids(self.tokens.weight.backend, source_ids))
        return self.encoder(x, mask=mask, segments=segments, rng=rng)

    def decode(
        self,
        target_ids: Any,
        memory: Tensor | None,
        *,
        mask: Any = None,
        cache: nn.Cache | None = None,
        rng: Generator | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Score every token as the target's next one, given the encoder's output.

        Args:
            target_ids: `b t`; with a cache, what follows the tokens that it has read.
            memory: from `encode`, `b s d`; None with a cache, which has what is needed of it.
            mask: True (or not 0) where a token of the source is real, `b s`; None where all are. A batch of 1 serves
                all.
            cache: from `new_cache`. Under `no_grad` only.
            rng: given in training, for dropout.
            last_only: score only what follows the last position.

        Returns:
            Logits, `b t v`, or `b 1 v` of the last position.
        """
        x = self.tokens(checked_ids(self.tokens.weight.backend, target_ids))
        x = self.decoder(x, memory=memory, memory_mask=mask, cache=cache, rng=rng)
        return self.head(x[:, -1:] if last_only else x, self.tokens)

    def new_cache(self, batch: int, memory: Tensor) -> nn.Cache:
        """An empty key/value cache for `batch` targets of up to the context's length.

        Args:
            batch: how many.
            memory: from `encode`; its keys and values are computed once, here. A batch of 1 serves all targets.
        """
        return self.decoder.new_cache(batch, memory)
