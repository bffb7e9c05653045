"""Wrong gradients and values, planted one at a time into NumPy's kernels, are caught by the suite's own cases."""

import functools

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.cases import Draw, compare_with_reference
from tests.planted import Bug, assert_caught
from tinyformer import backends, fused
from tinyformer.backends.numpy import activations, attention, dropout, linear, loss, norms, rotary, softmax

KernelBug = functools.partial(Bug, fused=True)


def square_linear(draw: Draw) -> tuple:
    n = draw.sizes(1)[0] + 1
    return fused.linear, draw.normal(2, n), draw.normal(n, n), draw.normal(n)


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
        "RMS norm kernel: the residual forgotten",
        norms._forward,
        "np.add(given, more[block], out=n)",
        "given",
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
        dropout._backward,
        "dropped(g, *saved)",
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
        rotary._backward,
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
        "softmax kernel: the gradient through the sum lost",
        softmax._backward,
        " - np.vecdot(g, out)[..., None]",
        " + 0.0",
        "softmax",
    ),
    KernelBug(
        "attention kernel: the softmax's sum term lost",
        attention._backward,
        "        slope -= np.vecdot(g_rows, out[batch, :, rows])[..., None]\n",
        "",
        "attention",
    ),
    KernelBug(
        "attention kernel: the mask of the dropout forgotten on the way back",
        attention._backward,
        "_dropped(g_rows @ turned_value[batch][..., :seen], keep, block, rate)",
        "g_rows @ turned_value[batch][..., :seen]",
        "attention",
    ),
    KernelBug(
        "attention kernel: the scale of the scores forgotten",
        attention._backward,
        "slope @ key[batch, :, :seen], scores.scale,",
        "slope @ key[batch, :, :seen], 1.0,",
        "attention",
    ),
    KernelBug(
        "attention kernel: a later block of queries overwrites what the keys got from an earlier one",
        attention._backward,
        "grad_key[batch, :, :seen], first)",
        "grad_key[batch, :, :seen], True)",
        "attention",
    ),
    KernelBug(
        "attention kernel: the bias forgotten",
        attention._Scores._of,
        "scores += self._bias[batch, :, rows, :seen]",
        "pass",
        "attention",
    ),
    KernelBug(
        "attention kernel: a later block of queries gets the bias of the first",
        attention._Scores._of,
        "self._bias[batch, :, rows, :seen]",
        "self._bias[batch, :, : rows.stop - rows.start, :seen]",
        "attention",
    ),
    KernelBug(
        "attention kernel: the gradient of a shared bias is not summed over the batch",
        attention._backward,
        "slope.sum(axis=0)",
        "slope[0]",
        "attention",
    ),
    KernelBug(
        "attention kernel: the bias gets the gradient of the product with the keys",
        attention._backward,
        "slope.sum(axis=0)",
        "scores.scale * slope.sum(axis=0)",
        "attention",
    ),
]
# Each of these is another function with its own right gradient: only the reference tells them apart.
VALUES = [
    Bug("softmax kernel: the mask forgotten", softmax._forward, "where=hidden[block]", "where=False", "softmax"),
    Bug("softmax kernel: 0 / 0 where nothing takes part", softmax._forward, "total == 0", "0", "softmax"),
    Bug(
        "attention kernel: the mask forgotten",
        attention._Scores.exponentials,
        "np.copyto(scores, 0.0, where=hidden)",
        "pass",
        "attention",
    ),
    Bug(
        "attention kernel: a later block of queries gets the mask of the first",
        attention._Scores._of,
        "self._hidden[batch, :, rows, :seen]",
        "self._hidden[batch, :, : rows.stop - rows.start, :seen]",
        "attention",
    ),
    Bug(
        "attention kernel: inf - inf where a query sees nothing",
        attention._Scores.exponentials,
        ", initial=np.finfo(scores.dtype).min)",
        ", initial=None)",
        "attention",
    ),
    Bug(
        "attention kernel: 0 / 0 where a query sees nothing",
        attention._Scores.exponentials,
        "total == 0",
        "0",
        "attention",
    ),
]


@pytest.mark.parametrize("bug", [pytest.param(bug, id=bug.what) for bug in KERNELS])
def test_planted_bug_is_caught(bug, monkeypatch):
    assert_caught(bug, monkeypatch)


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
