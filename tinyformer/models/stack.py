"""What every transformer here is made of: embedded tokens in, hidden states out.

A stack adds positions (and segments) to the embeddings of the tokens and runs them through its blocks. A GPT is a
causal stack, a BERT one that looks both ways, a T5 one of each, where the causal one also looks at the other's output.

Read before: `config.py`, `tinyformer/nn/blocks.py`. Read next: `head.py`, `decoder.py`.
"""

from __future__ import annotations

from typing import Any

from .. import nn
from ..backends import Generator
from ..tensor import Array, Tensor
from .config import ModelConfig


class Stack(nn.Module):
    """Positions, blocks, and with pre-norm a final norm.

    Weights start normal with deviation 0.02; those that write into the residual stream with 0.02 / √(2 layers), as the
    stream adds up that many of them (Radford 2019, §2.3). Where the embeddings are as large as the stream itself,
    which is so in T5 and in the first transformer, they start with 1/√inputs (Raffel 2020, by its code).

    Args:
        config: of the model.
        init: makes the parameters.
        layers: blocks.
        causal: whether a position sees only itself and earlier ones.
        cross: whether the blocks look at another stack's output, too.
    """

    def __init__(
        self, config: ModelConfig, init: nn.Initializer, *, layers: int, causal: bool, cross: bool = False
    ) -> None:
        self.config, self.causal = config, causal
        width, norm = config.width, {"bias": config.bias, "epsilon": config.epsilon}
        self.positions = nn.Embedding(config.context, width, init) if config.positions == "learned" else None
        self.segments = nn.Embedding(config.segments, width, init) if config.segments else None
        self.embedding_norm = nn.make_norm(config.norm, width, init, **norm) if config.embedding_norm else None
        self.relative = None
        if config.positions == "relative":
            kinds = {"buckets": config.buckets, "max_distance": config.max_distance, "bidirectional": not causal}
            self.relative = nn.RelativePositions(config.heads, init, std=width**-0.5, **kinds)
        wide = has_wide_embeddings(config)
        self.blocks = [
            nn.Block(
                width,
                config.heads,
                config.hidden,
                init,
                cross=cross,
                head_width=config.head_width,
                norm=config.norm,
                pre_norm=config.norm_position == "pre",
                activation=config.activation,
                gated=config.gated,
                scaled_scores=config.scaled_scores,
                dropout=config.dropout,
                std=None if wide else 0.02,
                residual_std=None if wide else 0.02 / (2 * layers) ** 0.5,
                **norm,
            )
            for _ in range(layers)
        ]
        self.norm = nn.make_norm(config.norm, width, init, **norm) if config.norm_position == "pre" else None

    def __call__(
        self,
        x: Tensor,
        *,
        mask: Any = None,
        segments: Any = None,
        positions: Any = None,
        memory: Tensor | None = None,
        memory_mask: Any = None,
        cache: nn.Cache | None = None,
        rng: Generator | None = None,
    ) -> Tensor:
        """Hidden states of embedded tokens.

        Args:
            x: embedded tokens, `b t d`.
            mask: which tokens may be looked at, `b t`: True where one is real; or numbers, where 0 is padding and
                tokens see each other only if theirs are equal, as of documents that share a row. With a cache, over
                the positions that it holds and then those of `x`.
            segments: of the tokens, `b t`; None for all 0.
            positions: of the tokens, `b t`, where they restart within a row; None for 0, 1, 2, ...
            memory: the other stack's output, `b s d`.
            memory_mask: True where a token of that is real, or numbers, where 0 is padding: `b s`.
            cache: from a model's `new_cache`; `x` continues what it has read, and is added to it.
            rng: given in training, for dropout.

        Returns:
            `b t d`.
        """
        xp, start = x.backend, cache.length if cache else 0
        x = nn.dropout(self._embed(xp, x, start, segments, positions), self.config.dropout, rng)
        places = xp.arange(start, start + x.shape[1])
        angles = bias = None
        if self.config.positions == "rotary":
            angles = nn.rotary_angles(xp, places, self.config.channels, x.dtype)
        if self.relative is not None:
            bias = self.relative(places, xp.arange(start + x.shape[1]))
        settings = {
            "mask": visible(xp, mask, x.shape[1]),
            "bias": bias,
            "angles": angles,
            "memory": memory,
            "memory_mask": real(xp, memory_mask),
        }
        for i, block in enumerate(self.blocks):
            layer_cache = cache.layers[i] if cache else None
            x = block(x, causal=self.causal, cache=layer_cache, rng=rng, **settings)
        return x if self.norm is None else self.norm(x)

    def _embed(self, xp: Any, x: Tensor, start: int, segments: Any, positions: Any) -> Tensor:
        config, stop = self.config, start + x.shape[1]
        if config.scaled_embedding:
            x = x * config.width**0.5
        if self.positions is not None:
            if stop > config.context:
                raise ValueError(f"there are {config.context} learned positions, and {stop} tokens")
            known = self.positions.weight[start:stop] if positions is None else self.positions(xp.from_host(positions))
            x = x + known
        elif config.positions == "sinusoidal":
            places = xp.arange(start, stop) if positions is None else xp.from_host(positions)
            x = x + Tensor(nn.sinusoidal(xp, places, config.width, x.dtype))
        if self.segments is not None:
            x = x + (self.segments.weight[0] if segments is None else self.segments(xp.from_host(segments)))
        elif segments is not None:
            raise ValueError("segments were given, and this model embeds none (`segments` of its configuration is 0)")
        return x if self.embedding_norm is None else self.embedding_norm(x)

    def new_cache(self, batch: int, memory: Tensor | None = None) -> nn.Cache:
        """An empty key/value cache for `batch` sequences of up to the context's length.

        Args:
            batch: how many.
            memory: the other stack's output, `b s d`, whose keys and values are computed here, once; a batch of 1
                serves all sequences.
        """
        config, weight = self.config, self.blocks[0].attention.query.weight
        shape = (batch, config.heads, config.context, config.channels)
        layers = []
        for block in self.blocks:
            seen = None if memory is None else block.cross_attention.keys_values(memory)
            layers.append(nn.LayerCache(shape, weight.backend, weight.dtype, memory=seen))
        return nn.Cache(layers)


def has_wide_embeddings(config: ModelConfig) -> bool:
    """Whether a token's embedding starts with about one unit in each channel, as the stream has after a norm."""
    return config.scaled_embedding or config.scaled_head


def token_embedding(config: ModelConfig, init: nn.Initializer) -> nn.Embedding:
    """The table of token embeddings, `v d`, with the deviation that the configuration asks for at the start."""
    std = config.width**-0.5 if config.scaled_embedding else 1.0 if config.scaled_head else 0.02
    return nn.Embedding(config.vocabulary, config.width, init, std=std)


def checked_ids(xp: Any, ids: Any) -> Array:
    """Token ids `b t` on the model's backend.

    Raises:
        ValueError: they have not two axes, or no token.
    """
    ids = xp.from_host(ids)
    if ids.ndim != 2 or ids.shape[1] == 0:
        raise ValueError(f"a model reads ids of shape (batch, tokens), and these have {tuple(ids.shape)}")
    return ids


def real(xp: Any, mask: Any) -> Array | None:
    """Which tokens of another stack are real, `b 1 1 s`, from a mask `b s` of truth values or of numbers."""
    if mask is None:
        return None
    mask = xp.from_host(mask)
    return (mask if mask.dtype == xp.bool else mask != 0)[:, None, None, :]


def visible(xp: Any, mask: Any, queries: int) -> Array | None:
    """Which keys the last `queries` positions may look at, `b 1 t s` or `b 1 1 s`, from a mask as `Stack` takes it."""
    if mask is None:
        return None
    mask = xp.from_host(mask)
    if mask.dtype == xp.bool:
        return mask[:, None, None, :]
    alike = mask[:, -queries:, None] == mask[:, None, :]
    return xp.logical_and(alike, (mask != 0)[:, None, :])[:, None, ...]
