"""Activations and gates on the device: every function, in both precisions, from good and bad places in memory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.backends.on_cupy import LAYOUTS, compare, drawn, one_misaligned, plant
from tinyformer import Tensor, backward, functional, fused

SHAPES = st.sampled_from([(1,), (3, 5), (2, 8), (7, 9), (2, 3, 700)])
DTYPES = st.sampled_from(["float32", "bfloat16"])
SINGLE = [("gelu", {"approximate": True}), ("gelu", {"approximate": False}), ("relu", {}), ("silu", {})]


def calling(**settings):
    return lambda function, to: lambda *inputs: function(*inputs, **settings)


def gate_and_up(shape):
    return [drawn(*shape, seed=seed, scale=3.0) for seed in (0, 1)]


@pytest.mark.parametrize(("name", "settings"), SINGLE)
@given(shape=SHAPES, dtype=DTYPES, layout=st.sampled_from([*LAYOUTS, *one_misaligned(2)]))
def test_functions_of_one_number(cupy_backend, name, settings, shape, dtype, layout):
    compare(cupy_backend, name, calling(**settings), [drawn(*shape, scale=3.0)], dtype, layout=layout)


@pytest.mark.parametrize("activation", functional.ACTIVATIONS)
@given(shape=SHAPES, dtype=DTYPES, layout=st.sampled_from([*LAYOUTS, *one_misaligned(3)]))
def test_gates(cupy_backend, activation, shape, dtype, layout):
    compare(cupy_backend, "gated", calling(activation=activation), gate_and_up(shape), dtype, layout=layout)


@pytest.mark.parametrize("activation", functional.ACTIVATIONS)
@pytest.mark.parametrize("name", ["one", "gated"])
def test_far_out_an_activation_is_zero_or_the_identity(cupy_backend, name, activation):
    x = np.array([-3e38, -1e30, -90.0, -20.0, 20.0, 90.0, 1e30, 3e38], np.float32)
    leaf = Tensor(cupy_backend.from_host(x), requires_grad=True)
    ones = Tensor(cupy_backend.ones(x.shape, dtype=np.float32))
    if name == "gated":
        out = fused.gated(leaf, ones, activation=activation)
    elif activation.startswith("gelu"):
        out = fused.gelu(leaf, approximate=activation == "gelu")
    else:
        out = fused.registry[activation](leaf)
    np.testing.assert_allclose(out.numpy(), np.maximum(x, 0), atol=1e-7)
    gradient = cupy_backend.to_host(backward(out, ones.array)[leaf])
    np.testing.assert_allclose(gradient, x > 0, atol=1e-7)


@pytest.mark.parametrize(("name", "settings"), SINGLE)
def test_what_is_no_number_stays_none(cupy_backend, name, settings):
    leaf = Tensor(cupy_backend.from_host(np.array([np.nan, 1.0], np.float32)), requires_grad=True)
    out = fused.registry[name](leaf, **settings)
    assert np.isnan(out.numpy()).tolist() == [True, False]
    gradient = cupy_backend.to_host(backward(out, cupy_backend.ones_like(out.array))[leaf])
    assert np.isnan(gradient).tolist() == [name != "relu", False]


def test_relu_passes_gradients_as_its_definition_does(cupy_backend):
    x = np.array([-1.0, -0.0, 0.0, 2.0, np.nan, -1.0], np.float32)
    cotangent = np.array([1.0, 1.0, 1.0, 1.0, 1.0, np.nan], np.float32)
    leaf = Tensor(cupy_backend.from_host(x), requires_grad=True)
    gradient = backward(fused.relu(leaf), cupy_backend.from_host(cotangent))[leaf]
    np.testing.assert_array_equal(cupy_backend.to_host(gradient), [0.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    ones = Tensor(cupy_backend.ones_like(leaf.array))
    gated = fused.gated(leaf, ones, activation="relu")
    np.testing.assert_array_equal(
        cupy_backend.to_host(backward(gated, cupy_backend.from_host(cotangent))[leaf]), [0.0, 0.0, 0.0, 1.0, 1.0, 0.0]
    )


def test_gates_that_differ_are_left_to_the_definition(cupy_backend):
    gate, up = drawn(2, 1).astype(np.float32), drawn(2, 3).astype(np.float32)
    out = fused.gated(*(Tensor(cupy_backend.from_host(x)) for x in (gate, up)), activation="relu")
    np.testing.assert_allclose(out.numpy(), np.maximum(gate, 0) * up, rtol=1e-6)
    wide = Tensor(cupy_backend.from_host(up.astype(np.float64)))
    np.testing.assert_array_equal(fused.silu(wide).dtype, np.float64)


@pytest.mark.parametrize(
    ("right", "wrong", "name", "settings"),
    [
        ("(1.0f + a * square)", "(1.0f + 3.0f * a * square)", "gelu", {"approximate": True}),
        ("1.0f + 3.0f * a * square", "1.0f + a * square", "gelu", {"approximate": True}),
        ("0.3989422804014327f", "0.7978845608028654f", "gelu", {"approximate": False}),
        ("x <= 0.0f ? A", "x <= 1.0f ? A", "relu", {}),
        ("x * s * (1.0f - s)", "x * s", "silu", {}),
        ("? x[i + j] :", "? x[i] :", "silu", {}),
        ("x[i + j] = pack.at[j]", "x[i] = pack.at[j]", "silu", {}),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_planted_bug_is_caught(cupy_backend, monkeypatch, right, wrong, name, settings, dtype):
    from tinyformer.backends.cupy import activations

    arguments = cupy_backend, name, calling(**settings), [drawn(7, 9, scale=3.0)], dtype
    compare(*arguments, layout="misaligned")
    plant(monkeypatch, activations, right, wrong)
    with pytest.raises(AssertionError, match="Not equal"):
        compare(*arguments, layout="misaligned")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("y.slope * to_float(b.at[j]) * to_float(g.at[j])", "y.slope * to_float(g.at[j])"),
        ("y.value * to_float(g.at[j])", "y.slope * to_float(g.at[j])"),
        (".value * to_float(other.at[j])", ".value"),
    ],
)
def test_a_planted_bug_in_a_gate_is_caught(cupy_backend, monkeypatch, right, wrong):
    from tinyformer.backends.cupy import activations

    arguments = cupy_backend, "gated", calling(activation="silu"), gate_and_up((7, 9)), "float32"
    compare(*arguments)
    plant(monkeypatch, activations, right, wrong)
    with pytest.raises(AssertionError, match="Not equal"):
        compare(*arguments)
