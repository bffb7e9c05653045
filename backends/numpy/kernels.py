"""Fused kernels for the CPU. Each computes what the composed function of the same name in `tinyformer/functional.py`
defines, with fewer passes over memory.

A NumPy operation on a large array reads and writes memory once; the arithmetic is free beside it. So a kernel saves
time by doing a chain of operations on a block that stays in cache, and by not forming what the gradient does not need.

Read before: `tinyformer/fused.py`. Read next: `attention.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..contract import Kernel
from ..special import erf

_BLOCK = 1 << 14  # elements of a block: 64 kB of float32


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, size, _BLOCK))


def _layer_norm_forward(xp, x, weight, bias, *, epsilon):
    """Keeps the normalised rows and the reciprocal deviations; row sums are products with ones: BLAS does them best."""
    rows = x.reshape(-1, x.shape[-1])
    average = np.full((rows.shape[1], 1), 1.0 / rows.shape[1], rows.dtype)
    normal = rows - rows @ average
    reciprocal = 1.0 / np.sqrt(np.square(normal) @ average + epsilon)
    normal *= reciprocal
    out = normal * weight
    if bias is not None:
        out += bias
    return out.reshape(x.shape), (normal, reciprocal, weight, bias is not None)


def _layer_norm_backward(xp, saved, g):
    """With n the normalised row: x̄ = (ĝ - mean(ĝ) - n mean(ĝ n)) / deviation, where ĝ = ḡ weight."""
    normal, reciprocal, weight, biased = saved
    shape, g = g.shape, g.reshape(normal.shape)
    average = np.full((g.shape[1], 1), 1.0 / g.shape[1], g.dtype)
    product = g * normal
    grad_weight = product.sum(axis=0)
    scaled = g * weight
    product *= weight
    np.multiply(normal, product @ average, out=product)
    product += scaled @ average
    scaled -= product
    scaled *= reciprocal
    return scaled.reshape(shape), grad_weight, g.sum(axis=0) if biased else None


layer_norm = Kernel(_layer_norm_forward, _layer_norm_backward)


def _value_and_slope(part, x):
    """Both in one pass over blocks; only the slope is kept."""
    flat = x.reshape(-1)
    out, slope = np.empty_like(flat), np.empty_like(flat)
    for block in _blocks(flat.size):
        part(flat[block], out[block], slope[block])
    return out.reshape(x.shape), slope.reshape(x.shape)


def _times_slope(xp, slope, g):
    return (g * slope,)


def _gelu_forward(xp, x, *, approximate):
    """0.5 of the time of whole-array operations; the exact one in single precision 0.15."""
    return _value_and_slope(_gelu_tanh if approximate else _gelu_erf, x)


def _gelu_tanh(x, out, slope):
    """y = x Φ with Φ = (1 + tanh u)/2, u = r (x + a x³); y' = Φ + x (1 - tanh² u) u'/2."""
    root, a = math.sqrt(2.0 / math.pi), 0.044715
    square = x * x
    tanh = square * (root * a)
    tanh += root
    tanh *= x
    np.tanh(tanh, out=tanh)
    square *= 1.5 * root * a
    square += 0.5 * root  # u'/2
    square *= x
    np.multiply(tanh, tanh, out=slope)
    np.subtract(1.0, slope, out=slope)
    slope *= square
    tanh *= 0.5
    tanh += 0.5
    slope += tanh
    np.multiply(x, tanh, out=out)


def _gelu_erf(x, out, slope):
    """y = x Φ(x); y' = Φ(x) + x φ(x), with φ = exp(-x²/2)/√2π."""
    scaled = x * math.sqrt(0.5)
    phi = _erf_single(scaled) if x.dtype == np.float32 else erf(np, scaled)
    phi *= 0.5
    phi += 0.5
    np.multiply(x, phi, out=out)
    np.exp(x * x * -0.5, out=slope)
    slope *= x
    slope *= 1.0 / math.sqrt(2.0 * math.pi)
    slope += phi


# P of erf(x) = tanh(x P(x²)) up to |x| = 4, lowest power first. artanh(erf(x)) / x is even and smooth, so a short
# polynomial will do; its coefficients make the largest error of erf as small as can be, which is 1e-7.
_TANH_OF_ERF = (1.12837927, 0.102769056, -1.91831734e-4, -6.19783909e-4, 8.76370631e-5, -5.668435e-6, 1.41850028e-7)


def _erf_single(x):
    """erf within 2e-7, in 0.08 of the time of `erf`, which is for double precision."""
    x = np.clip(x, -4.3, 4.3)  # where tanh is 1 to the last digit
    square = x * x
    total = square * _TANH_OF_ERF[-1]
    for coefficient in _TANH_OF_ERF[-2:0:-1]:
        total += coefficient
        total *= square
    total += _TANH_OF_ERF[0]
    total *= x
    return np.tanh(total, out=total)


gelu = Kernel(_gelu_forward, _times_slope)


def _silu_forward(xp, x):
    """0.55 to 0.75 of the time of whole-array operations, the less the larger the array."""
    return _value_and_slope(_silu, x)


def _silu(x, out, slope):
    """y = x σ, with σ = (1 + tanh(x/2))/2; y' = σ + x σ (1 - σ) = σ + y - y σ."""
    np.multiply(x, 0.5, out=slope)
    np.tanh(slope, out=slope)
    slope *= 0.5
    slope += 0.5
    np.multiply(x, slope, out=out)
    slope += out - out * slope


silu = Kernel(_silu_forward, _times_slope)


def _relu_forward(xp, x):
    """Keeps the result, which the next layer keeps as well. 0.08 of the time of `where`, which branches each time."""
    out = np.maximum(x, 0.0)
    return out, out


def _relu_backward(xp, out, g):
    return (g * (out > 0.0),)


relu = Kernel(_relu_forward, _relu_backward)


def _cross_entropy_forward(xp, logits, targets, weights, *, total, smoothing):
    """The loss, and in the array that held the exponentials, its gradient: (softmax - wanted) weight / total."""
    size = logits.shape[-1]
    xp.check_indices(targets, size, "targets")
    rows, targets = logits.reshape(targets.size, size), targets.reshape(-1)
    each = np.arange(targets.size)
    shift = rows.max(axis=1, keepdims=True)
    gradient = rows - shift
    wanted = gradient[each, targets] * (1.0 - smoothing)
    if smoothing:
        wanted += gradient.mean(axis=1) * smoothing
    np.exp(gradient, out=gradient)
    sums = gradient @ np.ones((size, 1), rows.dtype)
    weights = np.ones(targets.size, rows.dtype) if weights is None else weights.reshape(-1).astype(rows.dtype)
    total = float(weights.sum(dtype=np.float64)) if total is None else total
    if total == 0:
        raise ValueError("no target has a weight, so there is no mean loss")
    weights = weights / rows.dtype.type(total)
    loss = np.dot(np.log(sums[:, 0]) - wanted, weights)
    gradient *= weights[:, None] / sums
    if smoothing:
        gradient -= weights[:, None] * (smoothing / size)
    gradient[each, targets] -= weights * (1.0 - smoothing)
    return loss, gradient.reshape(logits.shape)


def _cross_entropy_backward(xp, gradient, g):
    return (gradient if g == 1.0 else gradient * g), None, None


cross_entropy = Kernel(_cross_entropy_forward, _cross_entropy_backward)


def _linear_forward(xp, x, weight, bias):
    """One product over all positions, the bias added in place."""
    rows = x.reshape(-1, x.shape[-1])
    out = rows @ weight
    if bias is not None:
        out += bias
    return out.reshape(*x.shape[:-1], weight.shape[1]), (rows, weight, bias is not None)


def _linear_backward(xp, saved, g):
    rows, weight, biased = saved
    shape, g = g.shape[:-1], g.reshape(rows.shape[0], -1)
    grad_bias = np.ones((1, g.shape[0]), g.dtype) @ g if biased else None  # BLAS adds rows up faster than sum
    return (g @ weight.T).reshape(*shape, -1), rows.T @ g, grad_bias[0] if biased else None


linear = Kernel(_linear_forward, _linear_backward)


def _rms_norm_forward(xp, x, weight, *, epsilon):
    """Keeps the normalised rows and the reciprocal root mean squares."""
    rows = x.reshape(-1, x.shape[-1])
    average = np.full((rows.shape[1], 1), 1.0 / rows.shape[1], rows.dtype)
    reciprocal = 1.0 / np.sqrt(np.square(rows) @ average + epsilon)
    normal = rows * reciprocal
    return (normal * weight).reshape(x.shape), (normal, reciprocal, weight)


def _rms_norm_backward(xp, saved, g):
    """With n the normalised row: x̄ = (ĝ - n mean(ĝ n)) / rms, where ĝ = ḡ weight."""
    normal, reciprocal, weight = saved
    shape, g = g.shape, g.reshape(normal.shape)
    average = np.full((g.shape[1], 1), 1.0 / g.shape[1], g.dtype)
    product = g * normal
    grad_weight = product.sum(axis=0)
    scaled = g * weight
    product *= weight
    scaled -= normal * (product @ average)
    scaled *= reciprocal
    return scaled.reshape(shape), grad_weight


rms_norm = Kernel(_rms_norm_forward, _rms_norm_backward)


def _rotate(x, cos, sin):
    """Both halves written straight into one array, without joining copies."""
    half = x.shape[-1] // 2
    left, right = x[..., :half], x[..., half:]
    b, h, t, c = x.shape
    out = np.empty((b, t, h, c), x.dtype).transpose(0, 2, 1, 3)
    np.multiply(left, cos, out=out[..., :half])
    out[..., :half] -= right * sin
    np.multiply(right, cos, out=out[..., half:])
    out[..., half:] += left * sin
    return out


def _rotary_forward(xp, x, cos, sin):
    return _rotate(x, cos, sin), (cos, sin)


def _rotary_backward(xp, saved, g):
    """A rotation's transpose turns the other way."""
    cos, sin = saved
    return _rotate(g, cos, -sin), None, None


rotary = Kernel(_rotary_forward, _rotary_backward)


def _dropout_forward(xp, x, keep, *, rate):
    """One factor for each element, 0 or 1 / (1 - rate), serves both directions."""
    factor = keep.astype(x.dtype)
    factor *= 1.0 / (1.0 - rate)
    return x * factor, factor


def _dropout_backward(xp, factor, g):
    return g * factor, None


dropout = Kernel(_dropout_forward, _dropout_backward, lambda x, keep, *, rate: keep is not None)

KERNELS: dict[str, Any] = {
    "cross_entropy": cross_entropy,
    "dropout": dropout,
    "gelu": gelu,
    "layer_norm": layer_norm,
    "linear": linear,
    "relu": relu,
    "rms_norm": rms_norm,
    "rotary": rotary,
    "silu": silu,
}
