"""The transformer block: attention, then a feed-forward network, each with a residual connection and a norm.

Read before: `attention.py`. Read next: `tinyformer/models/`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..backends import Generator
from ..tensor import Tensor
from .attention import Attention
from .layers import FeedForward, dropout, make_norm
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
        norm: "layer" or "rms".
        pre_norm: where the norm stands.
        activation: of the feed-forward network, and `gated` whether it has a gate.
        bias: whether linear maps and norms have one.
        dropout: in training, of both parts' outputs and the attention weights.
        epsilon: of the norms.
        residual_std: of the weights that write into the stream, at the start.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        init: Initializer,
        *,
        norm: str = "layer",
        pre_norm: bool = True,
        activation: str = "gelu",
        gated: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        epsilon: float = 1e-5,
        residual_std: float = 0.02,
    ) -> None:
        self.attention_norm = make_norm(norm, width, init, bias=bias, epsilon=epsilon)
        self.attention = Attention(width, heads, init, bias=bias, dropout=dropout, output_std=residual_std)
        self.feed_forward_norm = make_norm(norm, width, init, bias=bias, epsilon=epsilon)
        self.feed_forward = FeedForward(
            width, hidden, activation, init, gated=gated, bias=bias, output_std=residual_std
        )
        self.pre_norm, self.dropout = pre_norm, dropout

    def __call__(self, x: Tensor, *, rng: Generator | None = None, **attention: Any) -> Tensor:
        """`b t d` to `b t d`; further arguments go to the attention."""
        x = self._residual(x, self.attention_norm, lambda y: self.attention(y, rng=rng, **attention), rng)
        return self._residual(x, self.feed_forward_norm, self.feed_forward, rng)

    def _residual(
        self,
        x: Tensor,
        norm: Callable[[Tensor], Tensor],
        part: Callable[[Tensor], Tensor],
        rng: Generator | None,
    ) -> Tensor:
        if self.pre_norm:
            return x + dropout(part(norm(x)), self.dropout, rng)
        return norm(x + dropout(part(x), self.dropout, rng))
