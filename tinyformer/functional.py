"""The functions of a transformer as the papers write them, composed of primitives.

None of these has a gradient of its own: the primitives' closures do all of it. That makes them the definition, and
slow where an intermediate array is large; `fused.py` pairs some of them with a backend's fast kernel, and the layers
use those. Parameters before the `*` are arrays, those after it are settings.

Shapes: `b` batch, `t` query position, `s` key position, `h` head, `c` head width, `d` width, `f` hidden width,
`v` vocabulary; `...` any further axes.

Read before: `ops.py`. Read next: `fused.py`, or go on to `nn/`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from . import ops
from .tensor import Array, Tensor


def mean(x: Tensor, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
    """The average over some axes (None: all)."""
    total = ops.sum(x, axis=axis, keepdims=keepdims)
    return total * (math.prod(total.shape) / math.prod(x.shape))


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e⁻ˣ), written with tanh so that it never overflows."""
    return ops.tanh(x * 0.5) * 0.5 + 0.5


def relu(x: Tensor) -> Tensor:
    """max(x, 0), with gradient 0 at 0; what is no number stays none."""
    return ops.where(x.array <= 0, x.backend.zeros_like(x.array), x)


def silu(x: Tensor) -> Tensor:
    """x σ(x), also called swish (Ramachandran 2017)."""
    return x * sigmoid(x)


def gelu(x: Tensor, *, approximate: bool = True) -> Tensor:
    """x Φ(x), with Φ the normal distribution function (Hendrycks and Gimpel 2016).

    Args:
        approximate: with tanh, as GPT-2 computes it; False: exactly, with the error function, as BERT does.
    """
    if not approximate:
        return x * (ops.erf(x * math.sqrt(0.5)) + 1.0) * 0.5
    inner = (x + x * x * x * 0.044715) * math.sqrt(2.0 / math.pi)
    return x * (ops.tanh(inner) + 1.0) * 0.5


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "gelu-exact": functools.partial(gelu, approximate=False),
    "relu": relu,
    "silu": silu,
}


def gated(gate: Tensor, up: Tensor, *, activation: str) -> Tensor:
    """A gate's activation times another map of the same input: "GEGLU", "SwiGLU" and others (Shazeer 2020).

    Args:
        gate: `... f`.
        up: `... f`.
        activation: a key of `ACTIVATIONS`.
    """
    return ACTIVATIONS[activation](gate) * up


def softmax(x: Tensor, mask: Array | None = None, *, axis: int = -1) -> Tensor:
    """exp(x) / Σ exp(x) along an axis: positive, and adding up to 1.

    The largest element is subtracted first, which changes nothing and keeps exp from overflowing.

    Args:
        x: any shape.
        mask: True where an element takes part, broadcastable to `x`; the others get 0, also where a whole line is out.
    """
    xp = x.backend
    if mask is not None:
        x = ops.where(mask, x, xp.full(x.shape, -math.inf, dtype=x.dtype))
    largest = xp.max(x.array, axis=axis, keepdims=True)
    largest = xp.where(xp.isfinite(largest), largest, xp.zeros_like(largest))
    exps = ops.exp(x - Tensor(largest))
    total = ops.sum(exps, axis=axis, keepdims=True)
    if mask is not None:
        total = total + xp.astype(total.array == 0, total.dtype)  # a line without any element: 0 / 1, and not 0 / 0
    return exps / total


def log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """log softmax(x), without forming a quotient that may underflow."""
    shifted = x - Tensor(x.backend.max(x.array, axis=axis, keepdims=True))
    return shifted - ops.log(ops.sum(ops.exp(shifted), axis=axis, keepdims=True))


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, residual: Tensor | None = None, *, epsilon: float = 1e-5
) -> Tensor:
    """Shift and scale each position to mean 0 and variance 1, then by learned amounts (Ba 2016).

    Args:
        x: `... d`.
        weight: `d`.
        bias: `d`, or None.
        residual: added to x first, `... d`, or None. That suits post-norm, which needs the sum nowhere else; pre-norm
            goes on with the sum, too, and an operation of this engine has one result.
        epsilon: added to the variance.
    """
    if residual is not None:
        x = x + residual
    centred = x - mean(x, axis=-1, keepdims=True)
    variance = mean(centred * centred, axis=-1, keepdims=True)
    out = centred / ops.sqrt(variance + epsilon) * weight
    return out if bias is None else out + bias


def rms_norm(x: Tensor, weight: Tensor, residual: Tensor | None = None, *, epsilon: float = 1e-6) -> Tensor:
    """Scale each position to a mean square of 1, then by learned amounts (Zhang and Sennrich 2019).

    Args:
        x: `... d`.
        weight: `d`.
        residual: added to x first, as in `layer_norm`.
        epsilon: added to the mean square.
    """
    if residual is not None:
        x = x + residual
    return x / ops.sqrt(mean(x * x, axis=-1, keepdims=True) + epsilon) * weight


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W + b at each position.

    Args:
        x: `... d`.
        weight: `d f`.
        bias: `f`, or None.

    Returns:
        `... f`.
    """
    flat = ops.reshape(x, shape=(-1, x.shape[-1]))  # one large product, forward and for the gradient of the weight
    out = ops.matmul(flat, weight)
    if bias is not None:
        out = out + bias
    return ops.reshape(out, shape=(*x.shape[:-1], weight.shape[-1]))


def feed_forward(
    x: Tensor,
    up: Tensor,
    down: Tensor,
    up_bias: Tensor | None = None,
    down_bias: Tensor | None = None,
    *,
    activation: str,
) -> Tensor:
    """Two linear maps with a non-linearity between them (Vaswani 2017, §3.3).

    Args:
        x: `... d`.
        up: `d f`.
        down: `f d`.
        up_bias: `f`, or None.
        down_bias: `d`, or None.
        activation: a key of `ACTIVATIONS`.

    Returns:
        `... d`.
    """
    return linear(ACTIVATIONS[activation](linear(x, up, up_bias)), down, down_bias)


def embedding(weight: Tensor, ids: Array) -> Tensor:
    """Row `ids[...]` of a table `v d`: `... d`. Integers outside [0, v) are an IndexError."""
    return ops.take(weight, ids)


def dropout(x: Tensor, keep: Array | None, *, rate: float) -> Tensor:
    """Set elements to 0, and scale the others by 1 / (1 - rate), so that the mean stays (Srivastava 2014).

    Args:
        x: any shape.
        keep: truth values of the shape of `x`, False where an element is dropped; None drops nothing.
        rate: the share that is dropped.
    """
    if keep is None:
        return x
    return ops.where(keep, x * (1.0 / (1.0 - rate)), x.backend.zeros_like(x.array))


def rotary(x: Tensor, cos: Array, sin: Array) -> Tensor:
    """Turn each pair of channels by an angle that grows with the position (Su 2021, §3.4.2).

    The product of a turned query and a turned key depends on their distance alone. Channel i is paired with
    channel i + c/2, as LLaMA's published weights are.

    Args:
        x: `b h t c`.
        cos: of the angles, `t c/2`.
        sin: of the angles, `t c/2`.
    """
    half = x.shape[-1] // 2
    left, right = x[..., :half], x[..., half:]
    cos, sin = Tensor(cos), Tensor(sin)
    return ops.concat(left * cos - right * sin, left * sin + right * cos, axis=-1)


def causal_mask(xp: Any, queries: int, keys: int) -> Array:
    """True where key s may be seen by query t, `t s`; the last query stands at the last key."""
    last_seen = xp.arange(keys - queries, keys)[:, None]
    return xp.arange(keys)[None, :] <= last_seen


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Array | None = None,
    bias: Tensor | None = None,
    keep: Array | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
    dropout_rate: float = 0.0,
) -> Tensor:
    """Average the values, weighted by how well each key answers the query.

    softmax(scale · q kᵀ + bias) v, with hidden positions taken out of the softmax (Vaswani 2017, §3.2.1).

    Args:
        query: `b h t c`.
        key: `b h s c`, or `1 h s c` where all rows share them.
        value: as the keys.
        mask: True where a query may look, broadcastable to `b h t s`.
        bias: added to the scores, broadcastable to `b h t s`.
        keep: truth values `b h t s`, False where dropout removes a weight.
        causal: a query sees only its own and earlier keys; the last query stands at the last key.
        scale: of the scores; default 1/√c.
        dropout_rate: the share that `keep` removes.

    Returns:
        `b h t c`. A query that may look nowhere gets zeros, never NaN.
    """
    xp = query.backend
    scores = query @ ops.permute_dims(key, axes=(0, 1, 3, 2)) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias
    if causal:
        earlier = causal_mask(xp, query.shape[2], key.shape[2])
        mask = earlier if mask is None else xp.logical_and(mask, earlier)
    return dropout(softmax(scores, mask), keep, rate=dropout_rate) @ value


def cross_entropy(
    logits: Tensor,
    targets: Array,
    weights: Array | None = None,
    *,
    total: float | None = None,
    smoothing: float = 0.0,
    overwrite: bool = False,
) -> Tensor:
    """How surprised the softmax of the logits is by the targets, in nats: Σ w (-log p[target]) / total.

    Args:
        logits: `... v`.
        targets: integers in [0, v), `...`; an IndexError outside.
        weights: of each target, `...`, usually 0 or 1; None counts each once.
        total: to divide by; default the sum of the weights, where a sum of 0 is a ValueError. Pieces of a batch that
            are all given the whole batch's total add up to the loss of the whole batch.
        smoothing: the share of the target's probability that is spread evenly over the vocabulary (Szegedy 2015, §7).
        overwrite: allow a kernel to put the gradient where the logits are. They are gone afterwards: only for logits
            that nothing else reads, not even the gradient of what made them.

    Returns:
        A scalar.
    """
    xp = logits.backend
    size = logits.shape[-1]
    xp.check_indices(targets, size, "targets")
    targets = xp.reshape(targets, (math.prod(targets.shape), 1))
    logits = ops.reshape(logits, shape=(targets.shape[0], size))
    weights = xp.ones(targets.shape, dtype=logits.dtype) if weights is None else xp.reshape(weights, targets.shape)
    weights = xp.astype(weights, logits.dtype)
    total = float(xp.sum(weights)) if total is None else total
    if total == 0:
        raise ValueError("no target has a weight, so there is no mean loss")
    log_p = log_softmax(logits)
    nats = -ops.take_along_axis(log_p, targets)
    if smoothing:
        nats = nats * (1.0 - smoothing) - mean(log_p, axis=-1, keepdims=True) * smoothing
    return ops.sum(nats * Tensor(weights)) * (1.0 / total)
