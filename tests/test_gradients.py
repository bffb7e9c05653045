"""Every primitive, composed function and kernel against finite differences, and every kernel against its reference."""

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import COMPOSED, NOT_DIFFERENTIABLE, PRIMITIVES, Draw, compare_with_reference
from tinyformer import Tensor, backends, backward, check_gradients, functional, fused, ops
from tinyformer.backends.numpy import activations, attention, loss, norms, softmax
from tinyformer.gradcheck import GradientError


@pytest.mark.parametrize("name", PRIMITIVES)
@given(data=st.data())
def test_gradient_of_primitive(name, xp, data):
    function, *arrays = PRIMITIVES[name](Draw(xp, data))
    check_gradients(function, *arrays)


@pytest.mark.parametrize("name", COMPOSED)
@given(data=st.data())
def test_gradient_of_composed_function(name, xp, data):
    function, *arrays = COMPOSED[name](Draw(xp, data), getattr(functional, name))
    check_gradients(function, *arrays)


@pytest.mark.parametrize("name", fused.registry)
@given(data=st.data())
def test_gradient_of_fused_function(name, xp, data):
    function, *arrays = COMPOSED[name](Draw(xp, data), fused.registry[name])
    check_gradients(function, *arrays)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", fused.registry)
@given(data=st.data())
def test_kernel_equals_its_reference(name, dtype, data):
    compare_with_reference(name, dtype, Draw(backends.get("numpy"), data))


@pytest.mark.parametrize("name", fused.registry)
@given(data=st.data())
def test_kernel_of_a_device_equals_its_reference(name, cupy_backend, data):
    compare_with_reference(name, "float32", Draw(cupy_backend, data))


@given(data=st.data())
def test_attention_kernel_one_row_of_the_batch_at_a_time(monkeypatch, data):
    """As it works where the scores are many."""
    monkeypatch.setattr(attention, "_SCORES", 1)
    compare_with_reference("attention", "float64", Draw(backends.get("numpy"), data))


@pytest.mark.parametrize("name", ["cross_entropy", "gated", "gelu", "layer_norm", "rms_norm", "silu", "softmax"])
@given(data=st.data())
def test_kernels_in_several_blocks(name, monkeypatch, data):
    """As they work on arrays that are large; the last block is a short one."""
    for module in (activations, loss, norms, softmax):
        monkeypatch.setattr(module, "_BLOCK", 7)
    compare_with_reference(name, "float64", Draw(backends.get("numpy"), data))


def _public_functions(module) -> dict:
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }


def test_every_operation_has_a_case():
    """A primitive, a composed function, a fused function or a kernel without a case is an untested gradient."""
    assert set(_public_functions(ops)) == set(PRIMITIVES)
    composed = {name for name, f in _public_functions(functional).items() if f not in NOT_DIFFERENTIABLE}
    assert composed == set(COMPOSED)
    assert set(fused.registry) <= set(COMPOSED)
    assert set(backends.get("numpy").kernels) <= set(fused.registry), "a kernel without a reference"


def test_kernels_are_used_where_they_are_supported(monkeypatch):
    """Otherwise the comparison of a kernel with its reference would compare the reference with itself."""
    numpy = backends.get("numpy")
    called = []
    for name, kernel in list(numpy.kernels.items()):
        spy = kernel._replace(forward=lambda *a, name=name, f=kernel.forward, **k: (called.append(name), f(*a, **k))[1])
        monkeypatch.setitem(numpy.kernels, name, spy)

    def arrays(*shapes):
        return [Tensor(np.ones(shape)) for shape in shapes]

    truths, bias = np.ones((2, 1, 2, 2), bool), Tensor(np.ones((1, 1, 2, 2)))
    fused.attention(*arrays((2, 1, 2, 2), (1, 1, 2, 2), (1, 1, 2, 2)), truths[:, :, :1], bias, truths, causal=True)
    fused.cross_entropy(*arrays((2, 3)), np.array([0, 1]))
    fused.dropout(*arrays((2, 3)), np.ones((2, 3), bool), rate=0.5)
    fused.gated(*arrays((2, 3), (2, 3)), activation="silu")
    fused.gelu(*arrays((2, 3)))
    fused.layer_norm(*arrays((2, 3), (3,), (3,), (2, 3)))
    fused.linear(*arrays((2, 3), (3, 2)))
    fused.relu(*arrays((2, 3)))
    fused.rms_norm(*arrays((2, 3), (3,), (2, 3)))
    fused.rotary(*arrays((1, 1, 2, 4)), np.ones((2, 2)), np.ones((2, 2)))
    fused.silu(*arrays((2, 3)))
    fused.softmax(*arrays((2, 3)))
    assert sorted(called) == sorted(numpy.kernels)


def test_checker_sees_a_wrong_softmax_that_a_cotangent_of_ones_cannot_see():
    def wrong(x):
        return functional.softmax(x).detach()

    x = np.random.default_rng(0).standard_normal((2, 3))
    with pytest.raises(GradientError, match="wrong gradient of input 0: backward gives a slope of 0"):
        check_gradients(wrong, x)
    leaf = Tensor(x, requires_grad=True)
    np.testing.assert_allclose(backward(ops.sum(functional.softmax(leaf)))[leaf], 0.0, atol=1e-15)


def test_checker_sees_small_slopes():
    def wrong(x):
        return ops.sum(x * x.detach() * 1e-8)

    with pytest.raises(GradientError):
        check_gradients(wrong, np.random.default_rng(0).standard_normal(5))


def test_checker_names_the_wrong_input():
    def right_in_a_only(a, b):
        return a * b.detach() + b * 0.0

    rng = np.random.default_rng(0)
    with pytest.raises(GradientError, match="input 1"):
        check_gradients(lambda a, b: right_in_a_only(a, b) if b.requires_grad else a * b, *rng.random((2, 3)))


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (np.ones(3, np.float32), TypeError, "need float64"),
        (np.array([1.0, np.nan]), ValueError, "not finite"),
        (np.array([1.0, np.inf]), ValueError, "not finite"),
        (np.arange(3), TypeError, "need float64"),
    ],
)
def test_checker_refuses_what_it_cannot_check(bad, error, message):
    with pytest.raises(error, match=message):
        check_gradients(ops.exp, bad)


def test_checker_refuses_a_value_that_is_not_finite():
    with (
        pytest.warns(RuntimeWarning, match="divide by zero"),
        pytest.raises(ValueError, match="value is not finite"),
    ):
        check_gradients(ops.log, np.zeros(2))
