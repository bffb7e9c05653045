"""The layers that act on each position by itself: linear maps, embeddings, norms, dropout, the feed-forward network.

Each `__call__` takes and returns Tensors. Randomness is passed in: an `rng` given means training, where dropout acts;
None means inference.

Read before: `module.py`. Read next: `attention.py`.
"""

from __future__ import annotations

from .. import functional, fused
from ..backends import Generator
from ..tensor import Array, Tensor
from .module import Initializer, Module


class Linear(Module):
    """x W + b.

    Args:
        inputs: width of x.
        outputs: width of the result.
        init: makes the weight, `inputs outputs`, and the bias, `outputs`.
        bias: whether there is one.
        std: of the weight at the start; None for 1/√inputs, which keeps the variance of x.
    """

    def __init__(
        self, inputs: int, outputs: int, init: Initializer, *, bias: bool = True, std: float | None = 0.02
    ) -> None:
        self.weight = init.weight(inputs, outputs, std=inputs**-0.5 if std is None else std)
        self.bias = init.constant(outputs, value=0.0) if bias else None

    def __call__(self, x: Tensor) -> Tensor:
        return fused.linear(x, self.weight, self.bias)


class Embedding(Module):
    """A learned vector for each of `rows` ids."""

    def __init__(self, rows: int, width: int, init: Initializer, *, std: float = 0.02) -> None:
        self.weight = init.normal(rows, width, std=std)

    def __call__(self, ids: Array) -> Tensor:
        """`...` integers to `... d`."""
        return functional.embedding(self.weight, ids)


class LayerNorm(Module):
    """Each position shifted and scaled to mean 0 and variance 1, then by learned amounts (Ba 2016)."""

    def __init__(self, width: int, init: Initializer, *, bias: bool = True, epsilon: float = 1e-5) -> None:
        self.weight = init.constant(width, value=1.0)
        self.bias = init.constant(width, value=0.0) if bias else None
        self.epsilon = epsilon

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """The norm of x, or of x + residual, `... d`."""
        return fused.layer_norm(x, self.weight, self.bias, residual, epsilon=self.epsilon)


class RMSNorm(Module):
    """Each position scaled to a mean square of 1, then by learned amounts (Zhang and Sennrich 2019)."""

    def __init__(self, width: int, init: Initializer, *, epsilon: float = 1e-6) -> None:
        self.weight = init.constant(width, value=1.0)
        self.epsilon = epsilon

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """The norm of x, or of x + residual, `... d`."""
        return fused.rms_norm(x, self.weight, residual, epsilon=self.epsilon)


def make_norm(kind: str, width: int, init: Initializer, *, bias: bool, epsilon: float) -> LayerNorm | RMSNorm:
    """The norm that a configuration names: "layer" or "rms"."""
    if kind == "rms":
        return RMSNorm(width, init, epsilon=epsilon)
    return LayerNorm(width, init, bias=bias, epsilon=epsilon)


def dropout(x: Tensor, rate: float, rng: Generator | None) -> Tensor:
    """Drop a share of the elements in training; x itself in inference, where `rng` is None."""
    if rng is None or rate == 0.0:
        return x
    return fused.dropout(x, rng.keep(x.shape, 1.0 - rate), rate=rate)


class FeedForward(Module):
    """Two linear maps with a non-linearity between them, at each position (Vaswani 2017, §3.3).

    Args:
        width: of the input and output.
        hidden: between the maps.
        activation: a key of `fused.ACTIVATIONS`.
        init: makes the parameters.
        gated: multiply the activation by a third linear map of x (Shazeer 2020: "GEGLU", "SwiGLU").
        bias: whether the maps have one.
        std: of the weights at the start, as in `Linear`.
        output_std: of the last map's weight.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        activation: str,
        init: Initializer,
        *,
        gated: bool = False,
        bias: bool = True,
        std: float | None = 0.02,
        output_std: float | None = 0.02,
    ) -> None:
        self.up = Linear(width, hidden, init, bias=bias, std=std)
        self.gate = Linear(width, hidden, init, bias=bias, std=std) if gated else None
        self.down = Linear(hidden, width, init, bias=bias, std=output_std)
        self.activation = activation

    def __call__(self, x: Tensor) -> Tensor:
        """`b t d` to `b t d`."""
        if self.gate is None:
            maps = self.up.weight, self.down.weight, self.up.bias, self.down.bias
            return fused.feed_forward(x, *maps, activation=self.activation)
        return self.down(fused.gated(self.gate(x), self.up(x), activation=self.activation))
