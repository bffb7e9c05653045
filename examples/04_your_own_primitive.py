"""Write an operation with its gradient, and let `check_gradients` find out whether the gradient is right.

A primitive is a plain function on raw arrays. It returns its result, and a closure that pulls a gradient back: for
y = f(x) it turns ∂L/∂y into ∂L/∂x, which is ∂L/∂y f'(x) where f acts on each element. `@primitive` does the rest:
recording, broadcasting, errors that name the operation. Here it is softplus, a smooth relu, whose slope is the
sigmoid. A wrong slope trains, only worse, and nobody notices; so each gradient is compared with finite differences.

Run: `python examples/04_your_own_primitive.py`. Read before: `tinyformer/ops.py`. Read next: `tinyformer/gradcheck.py`,
and the recipes in CONTRIBUTING.md.
"""

import numpy as np

from tinyformer import Tensor, check_gradients, functional, ops, primitive
from tinyformer.gradcheck import GradientError


@primitive
def softplus(xp, x):
    """ln(1 + eˣ), written so that a large x cannot overflow."""

    def vjp(g):  # d ln(1 + eˣ)/dx = eˣ/(1 + eˣ) = σ(x)
        return (g * 0.5 * (1.0 + xp.tanh(0.5 * x)),)

    return xp.maximum(x, xp.zeros_like(x)) + xp.log1p(xp.exp(-xp.abs(x))), vjp


@primitive
def softplus_with_a_wrong_slope(xp, x):
    """The same function, but its author took the slope to be the step of a relu."""

    def vjp(g):
        return (g * xp.astype(x > 0, x.dtype),)

    return xp.maximum(x, xp.zeros_like(x)) + xp.log1p(xp.exp(-xp.abs(x))), vjp


def checked(what, function, *arrays):
    """Print what the check finds."""
    try:
        check_gradients(function, *arrays)
        print(f"  {what}: right")
    except GradientError as error:
        print(f"  {what}: {error}")


def main():
    x = Tensor([-2.0, 0.0, 2.0, 1000.0], requires_grad=True)
    y = softplus(x)
    y.sum().backward()
    print("x             ", x.numpy())
    print("softplus(x)   ", y.numpy().round(4))
    print("its slope     ", x.grad.round(4))

    rng = np.random.default_rng(0)
    points, weight = rng.normal(size=(3, 4)), rng.normal(size=(4, 2))
    print("\nAgainst finite differences:")
    checked("softplus", softplus, points)
    checked("softplus in a larger function", lambda x, w: ops.log(softplus(x @ w) + 1.0), points, weight)
    checked("softplus with a wrong slope", softplus_with_a_wrong_slope, points)

    # Why the check multiplies by a random cotangent before it adds up: a softmax adds up to 1 whatever x is, so the
    # gradient of its plain sum is 0, and a softmax that had lost its gradient altogether would pass.
    x = Tensor(points, requires_grad=True)
    functional.softmax(x).sum().backward()
    print(f"\nThe gradient of softmax(x).sum() is 0 everywhere: at most {np.abs(x.grad).max():.0e}")
    checked("softmax, against a random cotangent", functional.softmax, points)
    checked("softmax without a gradient", lambda x: functional.softmax(x).detach(), points)


if __name__ == "__main__":
    main()
