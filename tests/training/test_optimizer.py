"""AdamW and the flat storage, against the papers' formulas in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyformer import Tensor, backends
from tinyformer.training.optimizer import AdamW, FlatParameters, adamw, clip_scale


def parameters(seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    shapes = {"bias": (3,), "weight": (4, 3), "scale": (), "table": (2, 3, 2), "gain": (5,)}
    return {
        name: Tensor(np.asarray(rng.standard_normal(shape), dtype), requires_grad=True)
        for name, shape in shapes.items()
    }


REFERENCES = {"adamw": adamw}  # of a backend's update, the definition; each is compared with it below


def test_every_update_of_a_backend_has_a_reference():
    assert backends.get("numpy").updates.keys() == REFERENCES.keys()


def test_flat_storage_shares_memory_and_puts_matrices_first():
    given = parameters()
    before = {name: tensor.numpy().copy() for name, tensor in given.items()}
    flat = FlatParameters(given)
    assert flat.names == ["weight", "table", "bias", "scale", "gain"]
    assert flat.decay_end == 12 + 12
    assert flat.values.shape == (33,)
    for name, tensor in given.items():
        np.testing.assert_array_equal(tensor.numpy(), before[name])
        assert np.shares_memory(tensor.array, flat.values)
    flat.values[...] = 7
    assert all((tensor.numpy() == 7).all() for tensor in given.values())
    views = flat.views(flat.values)
    assert {name: view.shape for name, view in views.items()} == {n: t.shape for n, t in given.items()}


def test_a_parameter_may_have_a_rate_of_its_own():
    """As if each had been updated by itself with its own rate. Matrices decay alike; vectors do not decay."""
    factors, start, rate = {"table": 5.0}, parameters(), 0.1
    flat = FlatParameters(parameters(), factors)
    assert flat.names == ["table", "weight", "bias", "scale", "gain"]
    optimizer = AdamW.of(flat, weight_decay=0.5)
    flat.gradients[...] = np.random.default_rng(1).standard_normal(flat.gradients.shape)
    optimizer.update(flat, learning_rate=rate, step=1)
    gradients = flat.views(flat.gradients)
    for name, found in flat.views(flat.values).items():
        own = rate * factors.get(name, 1.0)
        kept = 1 - rate * 0.5 if found.ndim >= 2 else 1.0
        g = gradients[name]
        np.testing.assert_allclose(found, start[name].numpy() * kept - own * g / (np.abs(g) + 1e-8), rtol=1e-12)


def test_gradients_add_up_in_place_and_absent_ones_are_zero():
    given = parameters()
    flat = FlatParameters(given)
    flat.gradients[...] = 99
    ones = {tensor: np.ones(tensor.shape) for name, tensor in given.items() if name != "gain"}
    flat.accumulate(ones, first=True)
    flat.accumulate({given["bias"]: np.array([1.0, 2.0, 3.0])}, first=False)
    found = flat.views(flat.gradients)
    np.testing.assert_array_equal(found["bias"], [2, 3, 4])
    np.testing.assert_array_equal(found["weight"], np.ones((4, 3)))
    np.testing.assert_array_equal(found["gain"], np.zeros(5))
    assert flat.gradient_norm() == pytest.approx(math.sqrt(12 + 12 + 1 + 4 + 9 + 16))


@pytest.mark.parametrize("count", [2, 3, 7, 33])
def test_a_step_in_parts_is_the_step(count, monkeypatch):
    """Each worker adds up, measures and moves its stretch of the storage, wherever that cuts the parameters."""
    monkeypatch.setattr("tinyformer.training.optimizer.WORTH", 1)
    ends = []
    for whole in (True, False):
        given = parameters()
        flat = FlatParameters(given, {"table": 3.0})
        parts = [slice(None)] if whole else flat.parts(count)
        assert len(parts) == (1 if whole else count)
        rng, optimizer = np.random.default_rng(1), AdamW.of(flat, weight_decay=0.1)
        for step in (1, 2):
            passes = [{t: rng.standard_normal(t.shape) for t in given.values()} for _ in range(2)]
            del passes[1][given["gain"]], passes[0][given["weight"]]
            for number, gradients in enumerate(passes):
                for part in parts:
                    flat.accumulate(gradients, first=number == 0, part=part)
            squares = sum(flat.gradient_square(part) for part in parts)
            for part in parts:
                optimizer.update(flat, learning_rate=0.1, step=step, gradient_scale=squares**-0.5, part=part)
        ends.append([flat.values, flat.gradients, optimizer.first, optimizer.second])
    for expected, found in zip(*ends):
        np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_little_storage_is_not_shared_out():
    assert FlatParameters(parameters()).parts(4) == [slice(0, 33)]


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 6),
    st.floats(0, 0.99),
    st.floats(0, 0.999),
    st.floats(1e-10, 1e-2),
    st.floats(0, 1),
    st.sampled_from(["reference", "kernel"]),
)
def test_adamw_is_the_papers_algorithm(seed, steps, beta1, beta2, epsilon, decay, which):
    rng = np.random.default_rng(seed)
    size, decay_end, rate, scale = 7, int(rng.integers(0, 8)), 0.1, 0.5
    values = rng.standard_normal(size)
    expected, m, v = values.tolist(), [0.0] * size, [0.0] * size
    first, second = np.zeros(size), np.zeros(size)
    update = adamw if which == "reference" else backends.get("numpy").updates["adamw"]
    for t in range(1, steps + 1):
        gradients = rng.standard_normal(size)
        kept = gradients.copy()
        settings = {"beta1": beta1, "beta2": beta2, "epsilon": epsilon, "weight_decay": decay}
        places = {"decay_end": decay_end, "step": t, "gradient_scale": scale}
        update(values, gradients, first, second, learning_rate=rate, **settings, **places)
        np.testing.assert_array_equal(gradients, kept)
        for i in range(size):  # Loshchilov & Hutter 2019, algorithm 2, lines 5 to 12, with a schedule of 1
            g = kept[i] * scale
            m[i] = beta1 * m[i] + (1 - beta1) * g
            v[i] = beta2 * v[i] + (1 - beta2) * g * g
            m_hat, v_hat = m[i] / (1 - beta1**t), v[i] / (1 - beta2**t)
            decayed = rate * decay * expected[i] if i < decay_end else 0.0
            expected[i] -= rate * m_hat / (math.sqrt(v_hat) + epsilon) + decayed
    np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(first, m, rtol=1e-12)
    np.testing.assert_allclose(second, v, rtol=1e-12)


@pytest.mark.parametrize("name", REFERENCES)
def test_the_kernel_works_in_blocks_that_the_decay_may_cut(name, monkeypatch):
    monkeypatch.setattr("tinyformer.backends.numpy.adamw._BLOCK", 100)
    rng = np.random.default_rng(0)
    size, decay_end = 401, 171
    values, gradients = rng.standard_normal((2, size))
    settings = {"learning_rate": 0.1, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8, "weight_decay": 0.5}
    results = []
    for update in (REFERENCES[name], backends.get("numpy").updates[name]):
        mine, first, second = values.copy(), np.zeros(size), np.zeros(size)
        update(mine, gradients, first, second, **settings, decay_end=decay_end, step=1)
        results.append((mine, first, second))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-12)


@pytest.mark.parametrize(
    ("norm", "clip", "scale"), [(4.0, 1.0, 0.25), (0.5, 1.0, 1.0), (4.0, 0.0, 1.0), (0.0, 1.0, 1.0)]
)
def test_clipping_only_ever_shortens(norm, clip, scale):
    assert clip_scale(norm, clip) == scale


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_shows_in_the_norm(poison):
    flat = FlatParameters(parameters())
    flat.gradients[:] = 1
    flat.gradients[5] = poison
    assert not math.isfinite(flat.gradient_norm())
