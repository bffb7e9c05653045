"""Wrong gradients, planted one at a time into the real operations, are caught by the suite's own cases.

A bug is one changed line: the body of the operation is compiled again with the change and put in the place of the
real one, so whatever calls it meets the bug. `pytest -v` on this file prints the list. What must catch it is exactly
what guards the operations every day: the cases of `tests/cases.py`, and `check_gradients`.
"""

import pytest

from tests.cases import Draw
from tests.planted import Bug, assert_caught
from tinyformer import functional, ops, tensor
from tinyformer.backends.numpy.backend import NumpyBackend


def square_matmul(draw: Draw) -> tuple:
    """Of matrices for which a transposed operand still fits."""
    n = draw.sizes(1)[0] + 1
    return ops.matmul, draw.normal(n, n), draw.normal(n, n)


def cubic_permute(draw: Draw) -> tuple:
    n = draw.sizes(1)[0] + 1
    return lambda x: ops.permute_dims(x, axes=(2, 0, 1)), draw.normal(n, n, n)


ENGINE = [
    Bug(
        "broadcasting undone by a mean instead of a sum",
        tensor._fit,
        "xp.sum(gradient, axis=tuple(i for",
        "xp.mean(gradient, axis=tuple(i for",
        "add",
    ),
    Bug(
        "a tensor that is used twice keeps only one gradient",
        tensor.backward,
        "gradients[source] + gradient if source in gradients else gradient",
        "gradient",
        "gelu",
    ),
]
OPS = [
    Bug("subtract: sign lost", ops.subtract, "return g, -g", "return g, g", "subtract"),
    Bug("multiply: factors confused", ops.multiply, "g * b, g * a", "g * a, g * b", "multiply"),
    Bug("divide: square of the divisor lost", ops.divide, "-share * out", "-g * out", "divide"),
    Bug("power: exponent lost", ops.power, "g * exponent * x **", "g * x **", "power"),
    Bug("scale: factor lost, as in a dropout's scale", ops.scale, "xp, g * factor, g", "xp, g, g", "dropout"),
    Bug("tanh: square lost", ops.tanh, "1.0 - out * out", "1.0 - out", "tanh"),
    Bug("erf: 2/√π lost", ops.erf, " * (2.0 / math.sqrt(math.pi))", "", "erf"),
    Bug("cos: sign lost", ops.cos, "-g * xp.sin", "g * xp.sin", "cos"),
    Bug("where: both branches get the gradient", ops.where, "xp.where(condition, g, zero)", "g", "where"),
    Bug("max: all elements share the gradient", ops.max, "x == largest", "x <= largest", "max"),
    Bug("permute_dims: permuted again, not back", ops.permute_dims, "(g, inverse)", "(g, axes)", cubic_permute),
    Bug("concat: the axis counted from the wrong end", ops.concat, "(0, *stops)", "(0, *stops[::-1])", "concat"),
    Bug("matmul: second operand not transposed", ops.matmul, "xp.matrix_transpose(right)", "right", square_matmul),
    Bug("matmul: first operand not transposed", ops.matmul, "xp.matrix_transpose(left)", "left", square_matmul),
    Bug(
        "embedding: a row taken twice is overwritten instead of added to",
        NumpyBackend.scatter_add,
        "out[indices[starts]] = np.add.reduceat(values[order], starts, axis=0)",
        "out[indices] = values[order]",
        "embedding",
    ),
    Bug(
        "take_along_axis: the gradient goes to every element of the line",
        ops.take_along_axis,
        "xp.where(chosen, g, xp.zeros_like(g))",
        "xp.where(chosen, g, g)",
        "take_along_axis",
    ),
]
COMPOSITIONS = [
    Bug(
        "softmax: the gradient through the sum lost",
        functional.softmax,
        "total = ops.sum(exps, axis=axis, keepdims=True)",
        "total = ops.sum(exps, axis=axis, keepdims=True).detach()",
        "softmax",
    ),
    Bug(
        "layer norm: the gradient through the mean lost",
        functional.layer_norm,
        "x - mean(x, axis=-1, keepdims=True)",
        "x - mean(x, axis=-1, keepdims=True).detach()",
        "layer_norm",
    ),
    Bug(
        "RMS norm: the gradient through the root mean square lost",
        functional.rms_norm,
        "ops.sqrt(mean(x * x, axis=-1, keepdims=True) + epsilon)",
        "ops.sqrt(mean(x * x, axis=-1, keepdims=True) + epsilon).detach()",
        "rms_norm",
    ),
]


@pytest.mark.parametrize("bug", [pytest.param(bug, id=bug.what) for bug in [*ENGINE, *OPS, *COMPOSITIONS]])
def test_planted_bug_is_caught(bug, monkeypatch):
    assert_caught(bug, monkeypatch)
