"""Wrong gradients, planted one at a time into the real operations, are caught by the suite's own cases.

A bug is one changed line: the body of the operation is compiled again with the change and put in the place of the
real one, so whatever calls it meets the bug. `pytest -v` on this file prints the list. What must catch it is exactly
what guards the operations every day: the cases of `tests/cases.py`, and `check_gradients`.
"""

import dataclasses
import functools
import inspect
import textwrap
from collections.abc import Callable
from types import CodeType

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.cases import COMPOSED, PRIMITIVES, Draw, compare_with_reference
from tinyformer import backends, check_gradients, functional, fused, ops, tensor
from tinyformer.backends.numpy import activations, attention, kernels, linear, loss, norms
from tinyformer.backends.numpy.backend import NumpyBackend
from tinyformer.gradcheck import GradientError


@dataclasses.dataclass(frozen=True)
class Bug:
    """A line of a function, and what a tired author might have written instead.

    Attributes:
        what: is wrong.
        where: the function, with or without `@primitive`.
        right: the text as it is; it occurs once.
        wrong: the text in its place.
        case: whose cases must catch it: a primitive or composed function by name, or a case.
        fused: whether the case is put to the backend's kernel instead of the composed function.
    """

    what: str
    where: Callable
    right: str
    wrong: str
    case: str | Callable
    fused: bool = False

    def plant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        function = inspect.unwrap(self.where)
        source = textwrap.dedent(inspect.getsource(function))
        assert source.count(self.right) == 1, f"{function.__name__} no longer contains {self.right!r} once"
        module = compile(source.replace(self.right, self.wrong), f"<{self.what}>", "exec")
        (code,) = (c for c in module.co_consts if isinstance(c, CodeType) and c.co_name == function.__name__)
        monkeypatch.setattr(function, "__code__", code)

    def draw_case(self, draw: Draw) -> tuple:
        if callable(self.case):
            return self.case(draw)
        if self.case in PRIMITIVES:
            return PRIMITIVES[self.case](draw)
        return COMPOSED[self.case](draw, (fused.registry if self.fused else vars(functional))[self.case])


def square_matmul(draw: Draw) -> tuple:
    """Of matrices for which a transposed operand still fits."""
    n = draw.sizes(1)[0] + 1
    return ops.matmul, draw.normal(n, n), draw.normal(n, n)


def square_linear(draw: Draw) -> tuple:
    n = draw.sizes(1)[0] + 1
    return fused.linear, draw.normal(2, n), draw.normal(n, n), draw.normal(n)


def cubic_permute(draw: Draw) -> tuple:
    n = draw.sizes(1)[0] + 1
    return lambda x: ops.permute_dims(x, axes=(2, 0, 1)), draw.normal(n, n, n)


KernelBug = functools.partial(Bug, fused=True)
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
    Bug("scale: factor lost, as in a dropout's scale", ops.scale, "(g * factor,)", "(g,)", "dropout"),
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
KERNELS = [
    KernelBug(
        "layer norm kernel: the mean term lost",
        norms._backward,
        "            y -= g_rows @ share\n",
        "",
        "layer_norm",
    ),
    KernelBug(
        "layer norm kernel: the weight left out of the gradient",
        norms._backward,
        "np.multiply(g_rows, weight, out=y)",
        "np.multiply(g_rows, 1.0, out=y)",
        "layer_norm",
    ),
    KernelBug(
        "RMS norm kernel: the normalising term lost",
        norms._backward,
        "        y -= n\n",
        "",
        "rms_norm",
    ),
    KernelBug(
        "gelu kernel: the 3 of the cube's slope lost",
        activations._gelu_tanh,
        "slope *= 6.0 * root * a",
        "slope *= 2.0 * root * a",
        "gelu",
    ),
    KernelBug(
        "gelu kernel: the density lost from the exact slope",
        activations._gelu_erf,
        "    slope *= work\n",
        "",
        "gelu",
    ),
    KernelBug(
        "cross-entropy kernel: no -1 at the target",
        loss._cross_entropy_forward,
        "        part[each, target] -= weight * (1.0 - smoothing)\n",
        "",
        "cross_entropy",
    ),
    KernelBug(
        "cross-entropy kernel: the gradient that comes in is ignored",
        loss._cross_entropy_backward,
        "gradient *= g",
        "pass",
        "cross_entropy",
    ),
    KernelBug(
        "dropout kernel: what was dropped gets a gradient",
        kernels._dropout_backward,
        "_dropped(g, *saved)",
        "g / (1.0 - saved[1])",
        "dropout",
    ),
    Bug(
        "linear kernel: weight not transposed",
        linear._linear_backward,
        "g @ weight.T",
        "g @ weight",
        square_linear,
    ),
    KernelBug(
        "rotary kernel: turned the same way again",
        kernels._rotary_backward,
        "cos, -sin",
        "cos, sin",
        "rotary",
    ),
    KernelBug(
        "relu kernel: every element gets the gradient",
        activations._relu_backward,
        "out > 0.0",
        "out >= 0.0",
        "relu",
    ),
    KernelBug(
        "silu kernel: the slope of the logistic function lost",
        activations._silu,
        "    slope *= work\n",
        "",
        "silu",
    ),
    KernelBug(
        "gated kernel: the gate's gradient without the other factor",
        activations._gated_forward,
        "        gate_slope *= up\n",
        "",
        "gated",
    ),
    KernelBug(
        "attention kernel: the softmax's sum term lost",
        attention._backward,
        "        scores -= np.vecdot(g_rows, out[batch, :, rows])[..., None]\n",
        "",
        "attention",
    ),
    KernelBug(
        "attention kernel: the mask of the dropout forgotten on the way back",
        attention._backward,
        "_dropped(g_rows @ value[batch, :, :seen].swapaxes(2, 3), keep, block, rate)",
        "g_rows @ value[batch, :, :seen].swapaxes(2, 3)",
        "attention",
    ),
    KernelBug(
        "attention kernel: the scale of the scores forgotten",
        attention._backward,
        "        scores *= scale\n",
        "",
        "attention",
    ),
    KernelBug(
        "attention kernel: a later block of queries overwrites what the keys got from an earlier one",
        attention._backward,
        "grad_key[batch, :, :seen] +=",
        "grad_key[batch, :, :seen] =",
        "attention",
    ),
    KernelBug(
        "attention kernel: the bias forgotten",
        attention._forward,
        "weights += added[batch, :, rows, :seen]",
        "pass",
        "attention",
    ),
    KernelBug(
        "attention kernel: a later block of queries gets the bias of the first",
        attention._forward,
        "added[batch, :, rows, :seen]",
        "added[batch, :, : rows.stop - rows.start, :seen]",
        "attention",
    ),
    KernelBug(
        "attention kernel: the gradient of a shared bias is not summed over the batch",
        attention._backward,
        "scores.sum(axis=0)",
        "scores[0]",
        "attention",
    ),
    KernelBug(
        "attention kernel: the bias gets the gradient of the product with the keys",
        attention._backward,
        "scores.sum(axis=0)",
        "scale * scores.sum(axis=0)",
        "attention",
    ),
]
# Each of these is another function with its own right gradient: only the reference tells them apart.
VALUES = [
    Bug(
        "attention kernel: the mask forgotten",
        attention._forward,
        "np.copyto(weights, -math.inf, where=hidden[batch, :, rows, :seen])",
        "pass",
        "attention",
    ),
    Bug(
        "attention kernel: a later block of queries gets the mask of the first",
        attention._forward,
        "hidden[batch, :, rows, :seen]",
        "hidden[batch, :, : rows.stop - rows.start, :seen]",
        "attention",
    ),
    Bug(
        "attention kernel: inf - inf where a query sees nothing",
        attention._forward,
        ", initial=lowest)",
        ", initial=None)",
        "attention",
    ),
    Bug("attention kernel: 0 / 0 where a query sees nothing", attention._forward, "total == 0", "0", "attention"),
]
BUGS = [*ENGINE, *OPS, *COMPOSITIONS, *KERNELS]


@pytest.mark.parametrize("bug", [pytest.param(bug, id=bug.what) for bug in BUGS])
def test_planted_bug_is_caught(bug, monkeypatch):
    @settings(phases=[Phase.generate], report_multiple_bugs=False)
    @given(data=st.data())
    def check(data):
        function, *arrays = bug.draw_case(Draw(backends.get("numpy"), data))
        check_gradients(function, *arrays)

    check()  # nothing is wrong yet
    bug.plant(monkeypatch)
    with pytest.raises(GradientError, match="wrong gradient of"):
        check()


@pytest.mark.parametrize("bug", [pytest.param(bug, id=bug.what) for bug in VALUES])
def test_planted_value_is_caught(bug, monkeypatch):
    @settings(phases=[Phase.generate], report_multiple_bugs=False)
    @given(data=st.data())
    def check(data):
        compare_with_reference(bug.case, "float64", Draw(backends.get("numpy"), data))

    check()  # nothing is wrong yet
    bug.plant(monkeypatch)
    with pytest.raises((AssertionError, RuntimeWarning)):  # a warning: NumPy's, of a NaN
        check()
