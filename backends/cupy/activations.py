"""Functions of one number, and gates, each in one pass.

The NumPy kernels keep slopes, which cost time to compute again. Here arithmetic is free beside memory: the inputs are
kept, which the layer before keeps anyway, and the gradient is computed from them.

Read before: `kernels.py`. Read next: `activations.cu`.
"""

from __future__ import annotations

import cupy
import numpy as np

from ..contract import Kernel
from .launch import REALS, Source

_SOURCE = Source("activations.cu")
_THREADS = 256
_NUMBERS = {"gelu": 0, "gelu-exact": 1, "relu": 2, "silu": 3}  # as activations.cu counts them


def _each(kernel, activation, inputs, outputs):
    """Launch a kernel over every element of arrays of one shape, and return the new ones."""
    inputs = [cupy.ascontiguousarray(x) for x in inputs]
    x = inputs[0]
    made = tuple(cupy.empty(x.shape, x.dtype) for _ in range(outputs))
    grid = -(-x.size * x.dtype.itemsize // (16 * _THREADS))
    arguments = (*inputs, *made, np.int64(x.size))
    _SOURCE.launch(kernel, x.dtype, grid, _THREADS, arguments, ACTIVATION=_NUMBERS[activation])
    return made


def _stored(x, *others):
    return x.dtype.name in REALS and all(other.shape == x.shape and other.dtype == x.dtype for other in others)


def _backward(xp, saved, g):
    activation, x = saved
    return _each("activation_backward", activation, (x, g), 1)


def _forward(activation, x):
    (out,) = _each("activation_forward", activation, (x,), 1)
    return out, (activation, x)


def _relu_forward(xp, x):
    """Keeps the result, which the next layer keeps as well: where it is not above 0, no more was the input."""
    out, _ = _forward("relu", x)
    return out, ("relu", out)


def _gated_forward(xp, gate, up, *, activation):
    (out,) = _each("gated_forward", activation, (gate, up), 1)
    return out, (activation, gate, up)


def _gated_backward(xp, saved, g):
    activation, gate, up = saved
    return _each("gated_backward", activation, (gate, up, g), 2)


gated = Kernel(
    _gated_forward,
    _gated_backward,
    lambda gate, up, *, activation: _stored(gate, up) and activation in _NUMBERS,
)
gelu = Kernel(
    lambda xp, x, *, approximate: _forward("gelu" if approximate else "gelu-exact", x),
    _backward,
    lambda x, *, approximate: _stored(x),
)
relu = Kernel(_relu_forward, _backward, _stored)
silu = Kernel(lambda xp, x: _forward("silu", x), _backward, _stored)
