"""The transformer block: attention, then a feed-forward network, each with a residual connection and a norm.

The block of an encoder-decoder's decoder has a second attention between them, which looks at the encoder's output.

Read before: `attention.py`. Read next: `tinyformer/models/`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..backends import Generator
from ..tensor import Array, Tensor
from .attention import Attention, LayerCache
from .layers import FeedForward, LayerNorm, RMSNorm, dropout, make_norm
from .module import Initializer, Module


class Block(Module):
    """Attention and a feed-forward network around a residual stream.

    With pre-norm each part reads a normed copy of the stream, x + f(norm(x)), and the stream itself is never normed
    (GPT-2, §2.3); with post-norm the sum is, norm(x + f(x)) (Vaswani 2017, §3.1).

    Args:
        width: of the stream, `d`.
        heads: of the attention.
        hidden: width of the feed-forward network.
        init: makes the parameters.
        cross: whether there is a cross-attention.
        head_width: channels of each head; default d / heads.
        norm: "layer" or "rms".
        pre_norm: where the norm stands.
        activation: of the feed-forward network, and `gated` whether it has a gate.
        bias: whether linear maps and norms have one.
        scaled_scores: whether attention scores are divided by √c.
        dropout: in training, of the parts' outputs and the attention weights.
        epsilon: of the norms.
        std: of the weights at the start, as in `Linear`.
        residual_std: of those that write into the stream.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        init: Initializer,
        *,
        cross: bool = False,
        head_width: int | None = None,
        norm: str = "layer",
        pre_norm: bool = True,
        activation: str = "gelu",
        gated: bool = False,
        bias: bool = True,
        scaled_scores: bool = True,
        dropout: float = 0.0,
        epsilon: float = 1e-5,
        std: float | None = 0.02,
        residual_std: float | None = 0.02,
    ) -> None:
        common = {"bias": bias, "std": std, "output_std": residual_std}
        attention = {"head_width": head_width, "dropout": dropout, "scaled": scaled_scores, **common}
        self.attention_norm = make_norm(norm, width, init, bias=bias, epsilon=epsilon)
        self.attention = Attention(width, heads, init, **attention)
        self.cross_attention_norm = make_norm(norm, width, init, bias=bias, epsilon=epsilon) if cross else None
        self.cross_attention = Attention(width, heads, init, **attention) if cross else None
        self.feed_forward_norm = make_norm(norm, width, init, bias=bias, epsilon=epsilon)
        self.feed_forward = FeedForward(width, hidden, activation, init, gated=gated, **common)
        self.pre_norm, self.dropout = pre_norm, dropout

    def __call__(
        self,
        x: Tensor,
        *,
        memory: Tensor | None = None,
        memory_mask: Array | None = None,
        cache: LayerCache | None = None,
        rng: Generator | None = None,
        **attention: Any,
    ) -> Tensor:
        """One step of the stream.

        Args:
            x: `b t d`.
            memory: the encoder's output, `b s d`, for the cross-attention. A cache that has its keys and values
                takes its place.
            memory_mask: True where the cross-attention may look, broadcastable to `b h t s`.
            cache: of this layer.
            rng: given in training, for dropout.
            attention: further arguments of the self-attention.

        Returns:
            `b t d`.
        """
        x = self._residual(x, self.attention_norm, lambda y: self.attention(y, cache=cache, rng=rng, **attention), rng)
        if self.cross_attention is not None:
            look = self.cross_attention
            seen = cache.memory if cache is not None else look.keys_values(memory)
            x = self._residual(
                x, self.cross_attention_norm, lambda y: look(y, memory=seen, mask=memory_mask, rng=rng), rng
            )
        return self._residual(x, self.feed_forward_norm, self.feed_forward, rng)

    def _residual(
        self,
        x: Tensor,
        norm: LayerNorm | RMSNorm,
        part: Callable[[Tensor], Tensor],
        rng: Generator | None,
    ) -> Tensor:
        if self.pre_norm:
            return x + dropout(part(norm(x)), self.dropout, rng)
        return norm(x, residual=dropout(part(x), self.dropout, rng))
