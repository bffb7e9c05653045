"""Functions of one number, with their slopes, in blocks that stay in cache.

All but relu's keep slopes, which take no more memory than the inputs would, and are half of what they are computed
from. A slope y' = Φ + p (1 - Φ) is formed as 1 - (p - 1) (Φ - 1), which needs no further array.

Read before: `kernels.py`. Read next: `loss.py`.
"""

from __future__ import annotations

import math

import numpy as np

from ..contract import Kernel
from ..special import erf

# Elements of a block, 512 kB of float32. Smaller ones would stay nearer to the core, but after each call a thread waits
# for the interpreter, and two workers wait for each other: with 1 << 14 a gelu takes 1.25 times as long on both.
_BLOCK = 1 << 17


def _value_and_slopes(part, *arrays):
    """What `part(*arrays, out, *slopes, work)` writes, block by block: a value, and a slope for each array."""
    flat = [x.reshape(-1) for x in arrays]
    size, dtype, shape = flat[0].size, flat[0].dtype, arrays[0].shape
    out, *slopes = results = [np.empty(size, dtype) for _ in range(1 + len(flat))]
    work = np.empty(min(_BLOCK, size), dtype)
    for start in range(0, size, _BLOCK):
        block = slice(start, min(start + _BLOCK, size))
        part(*(x[block] for x in (*flat, *results)), work[: block.stop - start])
    return out.reshape(shape), [slope.reshape(shape) for slope in slopes]


def _times_slopes(xp, slopes, g):
    """A slope becomes the gradient, in place, for nothing needs it later: 0.6 of the time of a new array."""
    for slope in slopes:
        slope *= g
    return tuple(slopes)


def _gelu_forward(xp, x, *, approximate):
    """With backward, 0.35 to 0.6 of the composed function's time; the exact one in single precision 0.1 to 0.15."""
    return _value_and_slopes(_gelu_tanh if approximate else _gelu_erf, x)


def _gelu_tanh(x, out, slope, work):
    """y = x Φ with Φ = (1 + tanh u)/2, u = r (x + a x³); y' = Φ + y (1 - Φ) 2u', as tanh' = 1 - tanh² = 4 Φ (1 - Φ)."""
    root, a = math.sqrt(2.0 / math.pi), 0.044715
    phi = work
    np.multiply(x, x, out=slope)
    np.multiply(slope, root * a, out=phi)
    phi += root
    phi *= x
    np.tanh(phi, out=phi)
    phi *= 0.5
    phi += 0.5
    np.multiply(x, phi, out=out)
    slope *= 6.0 * root * a
    slope += 2.0 * root
    slope *= out
    slope -= 1.0
    phi -= 1.0
    slope *= phi
    np.subtract(1.0, slope, out=slope)


def _gelu_erf(x, out, slope, work):
    """y = x Φ(x); y' = Φ(x) + x φ(x), with φ = exp(-x²/2)/√2π."""
    if x.dtype == np.float32:
        _normal_single(x, out, slope, work)
    else:
        np.multiply(erf(np, x * math.sqrt(0.5)), 0.5, out=out)
        out += 0.5
        np.multiply(x, x, out=slope)
        work[...] = x
    slope *= -0.5
    np.exp(slope, out=slope)
    slope *= work
    slope *= 1.0 / math.sqrt(2.0 * math.pi)
    slope += out
    out *= x


# P of erf(x/√2) = tanh(x P(x²)) up to |x| = 4√2, lowest power first. artanh(erf(x)) / x is even and smooth, so a short
# polynomial will do; its coefficients make the largest error of erf as small as can be, which is 1e-7.
_TANH_OF_ERF = [
    coefficient * 0.5 ** (power + 0.5)
    for power, coefficient in enumerate(
        (1.12837927, 0.102769056, -1.91831734e-4, -6.19783909e-4, 8.76370631e-5, -5.668435e-6, 1.41850028e-7)
    )
]


def _normal_single(x, phi, square, clipped):
    """Φ(x) within 1e-7, x² and x, the latter two only up to |x| = 6, where Φ is 0 or 1 to the last digit.

    0.08 of the time of `erf`, which is for double precision.
    """
    np.clip(x, -6.0, 6.0, out=clipped)
    np.multiply(clipped, clipped, out=square)
    np.multiply(square, _TANH_OF_ERF[-1], out=phi)
    for coefficient in _TANH_OF_ERF[-2:0:-1]:
        phi += coefficient
        phi *= square
    phi += _TANH_OF_ERF[0]
    phi *= clipped
    np.tanh(phi, out=phi)
    phi *= 0.5
    phi += 0.5


def _silu_forward(xp, x):
    """With backward, 0.5 to 0.7 of the composed function's time, the less the larger the array."""
    return _value_and_slopes(_silu, x)


def _silu(x, out, slope, work):
    """y = x σ, with σ = (1 + tanh(x/2))/2; y' = σ + x σ (1 - σ) = σ + y (1 - σ)."""
    np.multiply(x, 0.5, out=slope)
    np.tanh(slope, out=slope)
    slope *= 0.5
    slope += 0.5
    np.multiply(x, slope, out=out)
    np.subtract(out, 1.0, out=work)
    slope -= 1.0
    slope *= work
    np.subtract(1.0, slope, out=slope)


def _relu(x, out, slope, work):
    np.maximum(x, 0.0, out=out)
    slope[...] = x > 0.0


def _relu_forward(xp, x):
    """Keeps the result, which the next layer keeps as well. With backward, 0.1 of the composed time."""
    out = np.maximum(x, 0.0)
    return out, out


def _relu_backward(xp, out, g):
    return (g * (out > 0.0),)


_PARTS = {"gelu": _gelu_tanh, "gelu-exact": _gelu_erf, "relu": _relu, "silu": _silu}


def _gated_forward(xp, gate, up, *, activation):
    """Keeps what the gradient is multiplied by for either input, and the product's own pass finds both in cache.

    With backward, 0.75 to 0.85 of the time of the activation's kernel and a product, which keep an array more; 0.35 to
    0.65 of the composed function's.
    """

    def part(gate, up, out, gate_slope, up_slope, work):
        _PARTS[activation](gate, up_slope, gate_slope, work)
        np.multiply(up_slope, up, out=out)
        gate_slope *= up

    return _value_and_slopes(part, gate, up)


def _gated_supports(gate, up, *, activation):
    return gate.shape == up.shape and gate.dtype == up.dtype and activation in _PARTS


gated = Kernel(_gated_forward, _times_slopes, _gated_supports)
gelu = Kernel(_gelu_forward, _times_slopes)
relu = Kernel(_relu_forward, _relu_backward)
silu = Kernel(_silu_forward, _times_slopes)
