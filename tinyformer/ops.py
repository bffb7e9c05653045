"""The primitives: each operation with the derivation of its gradient beside it.

For y = f(x) and a loss L, the closure receives ḡ = ∂L/∂y and returns ∂L/∂x = Jᵀ ḡ, with J = ∂y/∂x: a vector-Jacobian
product. Element by element that is ḡ f'(x). Where an input was broadcast, the engine sums the gradient back. Each
closure keeps alive only the arrays it names: many derivatives are written with the output, which exists anyway.

Everything else in the library (`functional.py`) is composed of these, and needs no derivatives of its own.
`operators.py` lets a Tensor use them as `a + b` and `x.sum()`. They are named as the array API names them, which is
why `sum` and `max` here are not Python's.

Read before: `tensor.py`. Read next: `functional.py`.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from .tensor import Array, primitive

# Arithmetic


def _agree(a: Array, b: Array) -> None:
    """Raise unless both are arrays of one dtype, or one is a number: promotion would make a gradient of another."""
    for x in (a, b):
        if not hasattr(x, "dtype") and not isinstance(x, int | float):
            raise TypeError(f"a {type(x).__name__} is neither a tensor nor a number; make a Tensor of it")
    if hasattr(a, "dtype") and hasattr(b, "dtype") and a.dtype != b.dtype:
        raise TypeError(f"{a.dtype} and {b.dtype} do not mix; cast one of them")


def _kept(xp, out: Array, *inputs: Array) -> Array:
    """A result in the type of the real array behind it: to CuPy a Python number is wider than a bfloat16."""
    dtype = next(x.dtype for x in inputs if hasattr(x, "dtype"))
    return out if out.dtype == dtype or not xp.isdtype(dtype, "real floating") else xp.astype(out, dtype)


@primitive
def add(xp, a, b):
    """a + b, broadcast."""
    _agree(a, b)

    def vjp(g):  # ∂(a+b)/∂a = ∂(a+b)/∂b = 1
        return g, g

    return _kept(xp, a + b, a, b), vjp


@primitive
def subtract(xp, a, b):
    """a - b, broadcast."""
    _agree(a, b)

    def vjp(g):  # ∂(a-b)/∂b = -1
        return g, -g

    return _kept(xp, a - b, a, b), vjp


@primitive
def multiply(xp, a, b):
    """a b, element by element, broadcast."""
    _agree(a, b)

    def vjp(g):  # ∂(ab)/∂a = b
        return g * b, g * a

    return _kept(xp, a * b, a, b), vjp


@primitive
def divide(xp, a, b):
    """a / b, element by element, broadcast."""
    _agree(a, b)
    out = _kept(xp, a / b, a, b)

    def vjp(g):  # ∂(a/b)/∂b = -a/b² = -(a/b)/b
        share = g / b
        return share, -share * out

    return out, vjp


@primitive
def negative(xp, x):
    """-x."""
    return -x, lambda g: (-g,)  # d(-x) = -dx


@primitive
def scale(xp, x, *, factor: float):
    """x times a Python number."""
    return _kept(xp, x * factor, x), lambda g: (_kept(xp, g * factor, g),)  # d(nx) = n dx


@primitive
def power(xp, x, *, exponent: float):
    """x to the power of a Python number."""

    def vjp(g):  # d xⁿ = n xⁿ⁻¹ dx; a constant where n = 0, also at x = 0
        return (_kept(xp, g * exponent * x ** (exponent - 1), g) if exponent else xp.zeros_like(g),)

    return _kept(xp, x**exponent, x), vjp


# Functions of one number


@primitive
def exp(xp, x):
    """eˣ."""
    out = xp.exp(x)
    return out, lambda g: (g * out,)  # its own derivative


@primitive
def log(xp, x):
    """The natural logarithm."""
    return xp.log(x), lambda g: (g / x,)  # x = eʸ, so dx = eʸ dy = x dy


@primitive
def sqrt(xp, x):
    """√x."""
    out = xp.sqrt(x)
    return out, lambda g: (_kept(xp, 0.5 * g / out, g),)  # x = y², so dx = 2y dy


@primitive
def tanh(xp, x):
    """The hyperbolic tangent."""
    out = xp.tanh(x)
    return out, lambda g: (_kept(xp, g * (1.0 - out * out), g),)  # tanh' = 1 - tanh²


@primitive
def erf(xp, x):
    """The error function, 2/√π ∫₀ˣ exp(-t²) dt."""

    def vjp(g):  # what is integrated, at x
        return (_kept(xp, g * xp.exp(-x * x) * (2.0 / math.sqrt(math.pi)), g),)

    return xp.erf(x), vjp


@primitive
def sin(xp, x):
    """The sine, of radians."""
    return xp.sin(x), lambda g: (g * xp.cos(x),)  # sin' = cos


@primitive
def cos(xp, x):
    """The cosine, of radians."""
    return xp.cos(x), lambda g: (-g * xp.sin(x),)  # cos' = -sin


@primitive
def absolute(xp, x):
    """|x|; the gradient at 0 is taken as 0."""
    return xp.abs(x), lambda g: (g * xp.sign(x),)  # |x| = x sign(x), and the sign does not change


# Choices


@primitive
def where(xp, condition, a, b):
    """a where the condition (truth values, a constant) holds, b elsewhere; broadcast."""
    _agree(a, b)

    def vjp(g):  # each output depends on the one input that it was chosen from
        zero = xp.zeros_like(g)
        return None, xp.where(condition, g, zero), xp.where(condition, zero, g)

    return xp.where(condition, a, b), vjp


@primitive
def maximum(xp, a, b):
    """The larger of a and b; where they are equal each gets half of the gradient."""
    _agree(a, b)
    out = xp.maximum(a, b)

    def vjp(g):  # each output is a copy of the larger input; ½ (1 + 0) where both are, by a == out and b != out
        to_a = _kept(xp, 0.5 * (xp.astype(a == out, g.dtype) + xp.astype(b != out, g.dtype)), g)
        return g * to_a, _kept(xp, g * (1.0 - to_a), g)

    return out, vjp


# Reductions


def _with_axes(xp, reduced: Array, shape: tuple[int, ...], axis: Any) -> Array:
    """A reduced array with its lost axes back, of length 1, so that it broadcasts against the original shape."""
    lost = range(len(shape)) if axis is None else (axis,) if isinstance(axis, int) else axis
    axes = {a % len(shape) for a in lost}
    return xp.reshape(reduced, tuple(1 if i in axes else n for i, n in enumerate(shape)))


@primitive
def sum(xp, x, *, axis=None, keepdims: bool = False):
    """The sum over some axes (None: all)."""
    shape = x.shape

    def vjp(g):  # every element counts once
        return (xp.broadcast_to(_with_axes(xp, g, shape, axis), shape),)

    return xp.sum(x, axis=axis, keepdims=keepdims), vjp


@primitive
def max(xp, x, *, axis=None, keepdims: bool = False):
    """The largest element over some axes (None: all); equal largest ones share the gradient."""
    largest = xp.max(x, axis=axis, keepdims=True)

    def vjp(g):  # the output is a copy of the largest element; of n equal ones each moves it by 1/n, on average
        chosen = xp.astype(x == largest, g.dtype)
        return (_with_axes(xp, g, x.shape, axis) * chosen / xp.sum(chosen, axis=axis, keepdims=True),)

    return largest if keepdims else xp.max(x, axis=axis), vjp


# Shapes


@primitive
def reshape(xp, x, *, shape: tuple[int, ...]):
    """The same elements in another shape; one length may be -1."""
    before = x.shape
    return xp.reshape(x, shape), lambda g: (xp.reshape(g, before),)  # the elements only have other places


@primitive
def permute_dims(xp, x, *, axes: tuple[int, ...]):
    """Axis i of the result is axis axes[i] of x."""
    inverse = tuple(sorted(range(len(axes)), key=lambda i: axes[i] % len(axes)))
    return xp.permute_dims(x, axes), lambda g: (xp.permute_dims(g, inverse),)  # each goes back to its place


@primitive
def broadcast_to(xp, x, *, shape: tuple[int, ...]):
    """x repeated to a shape; the engine sums the gradient over the repetitions."""
    return xp.broadcast_to(x, shape), lambda g: (g,)


@primitive
def concat(xp, *arrays, axis: int = 0):
    """Arrays joined along an axis that they have already."""
    axis = axis % arrays[0].ndim
    stops = tuple(itertools.accumulate(array.shape[axis] for array in arrays))
    before = (slice(None),) * axis

    def vjp(g):  # each array gets back its own stretch
        return tuple(g[(*before, slice(*ends), ...)] for ends in itertools.pairwise((0, *stops)))

    return xp.concat(arrays, axis=axis), vjp


@primitive
def getitem(xp, x, *, key):
    """x[key], for a key of integers, slices, None and `...`; anything else is a TypeError."""
    key = key if isinstance(key, tuple) else (key,)
    if not all(part is None or part is ... or isinstance(part, int | slice) for part in key):
        raise TypeError("a key is made of integers, slices, None and ...; `take` picks rows by an array of integers")
    key = key if ... in key else (*key, ...)
    shape = x.shape

    def vjp(g):  # what was not selected has no influence
        gradient = xp.zeros(shape, dtype=g.dtype)
        gradient[key] = g
        return (gradient,)

    return x[key], vjp


# Look-ups


@primitive
def take(xp, x, indices):
    """Rows of x: out[i] = x[indices[i]], for integer `indices` of any shape; an embedding is nothing else.

    Raises:
        IndexError: an index is negative or not below the number of rows.
        TypeError: the indices are not integers.
    """
    flat = xp.reshape(indices, (-1,))
    xp.check_indices(flat, x.shape[0], "indices")

    def vjp(g):  # a row that was taken several times adds up
        return xp.scatter_add(x.shape, flat, xp.reshape(g, (flat.shape[0], *x.shape[1:]))), None

    return xp.reshape(xp.take(x, flat, axis=0), (*indices.shape, *x.shape[1:])), vjp


@primitive
def take_along_axis(xp, x, indices):
    """One element from each line along the last axis: `... n` and integers `... 1` to `... 1`; checked as in `take`."""
    xp.check_indices(indices, x.shape[-1], "indices")
    length = x.shape[-1]

    def vjp(g):  # only the chosen element of a line has an influence
        chosen = indices == xp.arange(length, dtype=indices.dtype)
        return xp.where(chosen, g, xp.zeros_like(g)), None

    return xp.take_along_axis(x, indices, axis=-1), vjp


# Products


@primitive
def matmul(xp, a, b):
    """Matrix product over the last two axes, `... n k` times `... k m`; a vector counts as one row, or one column."""
    _agree(a, b)
    left = a[None, :] if a.ndim == 1 else a
    right = b[:, None] if b.ndim == 1 else b
    out = xp.matmul(left, right)

    def vjp(g):  # dL = Σ ḡᵢⱼ d(Σₖ aᵢₖ bₖⱼ), so ā = ḡ bᵀ and b̄ = aᵀ ḡ
        g = xp.reshape(g, out.shape)
        grad_a = xp.matmul(g, xp.matrix_transpose(right))
        grad_b = xp.matmul(xp.matrix_transpose(left), g)
        return grad_a, grad_b[..., 0] if b.ndim == 1 else grad_b

    shape = out.shape
    if a.ndim == 1:
        shape = (*shape[:-2], shape[-1])  # its one row
    if b.ndim == 1:
        shape = shape[:-1]  # its one column
    return xp.reshape(out, shape), vjp


@primitive
def astype(xp, x, *, dtype):
    """x in another real type; a TypeError for integers, through which no gradient passes."""
    before, out = x.dtype, xp.astype(x, dtype)
    if not xp.is_floating(out):
        raise TypeError(f"no gradient passes through {out.dtype}; cast .array instead")
    return out, lambda g: (xp.astype(g, before),)  # the same number, rounded
