"""Checking a gradient against finite differences: of our operations in the tests, and of yours.

    check_gradients(lambda x, w: functional.gelu(x @ w), numpy.random.randn(3, 4), numpy.random.randn(4, 2))

For y = f(x), a random cotangent u and a random direction v, backward gives u · (J v) as (Jᵀ u) · v, and two
evaluations give it as u · (f(x + εv) - f(x - εv)) / 2ε. A random u matters: with u = 1 the gradient of a softmax
is 0, and a wrong one passes. In float64 with ε = 1e-5 the two agree to about 1e-10.

Read before: `tensor.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from . import backends, ops
from .tensor import Tensor, backward


class GradientError(AssertionError):
    """The gradient that backward gives is not the slope of the function."""


def check_gradients(
    function: Callable[..., Tensor],
    *inputs: Any,
    seed: int = 0,
    epsilon: float = 1e-5,
    tolerance: float = 1e-6,
) -> None:
    """Raise unless the gradients of a function are the slopes that finite differences show.

    Each input is checked by itself along a random direction, and all of them together along another.

    Args:
        function: takes a Tensor for each input and returns a Tensor of any shape, the same at each call.
        inputs: float64 arrays of any backend. Constants belong into the function.
        seed: of the random directions and the cotangent.
        epsilon: the step, as a share of a direction of unit length per element.
        tolerance: of the difference, relative to the slope's terms added up by size.

    Raises:
        GradientError: a gradient is wrong; the message names the input and both values.
        TypeError: an input is not float64.
        ValueError: an input or the function's value is not finite, or no input was given.
    """
    if not inputs:
        raise ValueError("there is nothing to check: give at least one input array")
    xp = backends.of(inputs[0])
    for i, x in enumerate(inputs):
        if x.dtype != xp.float64:
            raise TypeError(f"input {i} is {x.dtype}, and finite differences need float64")
        if not xp.all(xp.isfinite(x)):
            raise ValueError(f"input {i} has elements that are not finite")
    random = xp.generator(seed, 0)
    leaves = [Tensor(x, requires_grad=True) for x in inputs]
    out = function(*leaves)
    if not xp.all(xp.isfinite(out.array)):
        raise ValueError("the function's value is not finite at these inputs")
    cotangent = random.normal(out.shape, xp.float64)
    loss = ops.sum(out * Tensor(cotangent))
    gradients = backward(loss) if loss.requires_grad else {}
    rounding = 1e-9 * float(xp.sum(xp.abs(out.array * cotangent)))  # of the difference of two values, over 2ε

    def value(direction: list[Any], step: float) -> float:
        moved = [Tensor(x + step * v) for x, v in zip(inputs, direction)]
        return float(xp.sum(function(*moved).array * cotangent))

    directions = [random.normal(x.shape, xp.float64) for x in inputs]
    checks = {
        f"input {i}": [v if i == j else xp.zeros_like(v) for j, v in enumerate(directions)] for i in range(len(inputs))
    }
    for name, direction in (checks | {"all inputs together": directions}).items():
        numeric = (value(direction, epsilon) - value(direction, -epsilon)) / (2 * epsilon)
        terms = [gradients[leaf] * v for leaf, v in zip(leaves, direction) if leaf in gradients]
        exact = math.fsum(float(xp.sum(term)) for term in terms)
        size = max(abs(numeric), math.fsum(float(xp.sum(xp.abs(term))) for term in terms))
        if not abs(numeric - exact) <= tolerance * size + rounding:
            raise GradientError(
                f"wrong gradient of {name}: backward gives a slope of {exact:.9g} along a random direction, "
                f"finite differences give {numeric:.9g}"
            )
