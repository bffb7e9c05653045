"""The decoder-only transformer: GPT.

Token and position embeddings, a stack of causal blocks, a final norm, and an output layer that scores every token of
the vocabulary as the next one (Radford 2019, §2.3).

Read before: `config.py`, `tinyformer/nn/blocks.py`. Read next: `tinyformer/objectives/causal.py`.
"""

from __future__ import annotations

from typing import Any

from .. import fused, nn
from ..backends import Generator
from ..tensor import Array, Tensor
from .config import ModelConfig


class Decoder(nn.Module):
    """A causal language model.

    Args:
        config: its shape.
        init: makes the parameters. Weights start normal with deviation 0.02; those that write into the residual
            stream with 0.02 / √(2 layers), as the stream adds up that many of them.
    """

    def __init__(self, config: ModelConfig, init: nn.Initializer) -> None:
        self.config, self._dtype = config, init.dtype
        width, norm = config.width, {"bias": config.bias, "epsilon": config.epsilon}
        self.tokens = nn.Embedding(config.vocabulary, width, init)
        self.positions = nn.Embedding(config.context, width, init) if config.positions == "learned" else None
        self.blocks = [
            nn.Block(
                width,
                config.heads,
                config.hidden,
                init,
                norm=config.norm,
                pre_norm=config.norm_position == "pre",
                activation=config.activation,
                gated=config.gated,
                dropout=config.dropout,
                residual_std=0.02 / (2 * config.layers) ** 0.5,
                **norm,
            )
            for _ in range(config.layers)
        ]
        self.norm = nn.make_norm(config.norm, width, init, **norm) if config.norm_position == "pre" else None
        self.head = None if config.tied else nn.Linear(width, config.vocabulary, init, bias=False)

    def __call__(
        self,
        ids: Any,
        *,
        mask: Any = None,
        cache: nn.Cache | None = None,
        rng: Generator | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Score every token as the next one, after each position.

        Args:
            ids: integers in [0, v), `b t`, on the host or the model's backend.
            mask: True where a token is real and may be looked at, `b t`; None where all are. With a cache, over the
                positions that it holds and then those of `ids`.
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
        x = self.tokens.weight
        xp = x.backend
        ids = xp.from_host(ids)
        if ids.ndim != 2 or ids.shape[1] == 0:
            raise ValueError(f"a model reads ids of shape (batch, tokens), and these have {tuple(ids.shape)}")
        start = cache.length if cache else 0
        x = nn.dropout(self._embed(xp, ids, start), self.config.dropout, rng)
        angles = None
        if self.config.positions == "rotary":
            positions = xp.arange(start, start + ids.shape[1])
            angles = nn.rotary_angles(xp, positions, self.config.width // self.config.heads, self._dtype)
        visible = None if mask is None else xp.from_host(mask)[:, None, None, :]
        for i, block in enumerate(self.blocks):
            layer_cache = cache.layers[i] if cache else None
            x = block(x, causal=True, mask=visible, angles=angles, cache=layer_cache, rng=rng)
        if last_only:
            x = x[:, -1:]
        if self.norm is not None:
            x = self.norm(x)
        return self.head(x) if self.head is not None else fused.linear(x, self.tokens.weight.T)

    def _embed(self, xp: Any, ids: Array, start: int) -> Tensor:
        x, stop = self.tokens(ids), start + ids.shape[1]
        if self.positions is not None:
            if stop > self.config.context:
                raise ValueError(f"there are {self.config.context} learned positions, and {stop} tokens")
            return x + self.positions.weight[start:stop]
        if self.config.positions == "sinusoidal":
            return x + Tensor(nn.sinusoidal(xp, xp.arange(start, stop), self.config.width, self._dtype))
        return x

    def new_cache(self, batch: int) -> nn.Cache:
        """An empty key/value cache for `batch` sequences of up to the context's length."""
        shape = (batch, self.config.heads, self.config.context, self.config.width // self.config.heads)
        xp = self.tokens.weight.backend
        return nn.Cache([nn.LayerCache(shape, xp, self._dtype) for _ in self.blocks])
