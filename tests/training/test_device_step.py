"""The step that a device takes by itself is the host's step, and decides for itself what a step may do."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_runs import Events, result

from tests.objectives.made import OBJECTIVES, draw_rows, generators, make
from tinyformer.tensor import Tensor
from tinyformer.training import updates
from tinyformer.training.device_step import DeviceStep
from tinyformer.training.loop import Trainer
from tinyformer.training.optimizer import AdamW, FlatParameters, adamw, clip_scale
from tinyformer.training.step import HostStep, Workers
from tinyformer.training.trainer import train

each = pytest.mark.parametrize("name", OBJECTIVES)
few = settings(max_examples=settings.default.max_examples // 4 + 1)  # of five objectives each
SETTINGS = {"learning_rate": 0.01, "step": 1}


def drawn(name, seed, count=6):
    """A batch with targets of any weight, and a row without one, where the objective allows that."""
    rng = np.random.default_rng(seed)
    batch = OBJECTIVES[name].corrupt(draw_rows(name, rng, count), generators(count, seed))
    if name in ("causal", "masked"):
        weights = rng.random(batch.targets.shape).astype(np.float32)
        weights *= 1 if batch.weights is None else batch.weights
        weights[3] = 0
        batch = dataclasses.replace(batch, weights=weights)
    return batch


def stepper(kind, name, rates=None, objective=None, **settings):
    """A way to take steps, with the storage that it changes and the running means."""
    objective = objective or OBJECTIVES[name]
    model = make(objective.mode, dropout=0.3)
    flat = FlatParameters(model.parameters(), rates)
    optimizer = AdamW.of(flat, epsilon=1e-3)  # where a gradient is almost 0, its rounding decides about little
    parts = model, objective, flat, optimizer
    made = DeviceStep(*parts, **settings) if kind == "device" else HostStep(*parts, Workers(1), **settings)
    return made, flat, optimizer


def take(made, batch, **settings):
    made.start(made.prepare(batch, settings["step"]), **settings)
    return made.finish()


@each
@few
@given(seed=st.integers(0, 99), micros=st.integers(1, 3), clip=st.sampled_from([0.0, 0.1, 100.0]))
def test_it_is_the_step_of_the_host(name, seed, micros, clip):
    rates = {"tokens.weight": 3.0}
    (host, expected, _), (device, found, _) = (
        stepper(kind, name, rates, micros=micros, clip=clip, seed=seed) for kind in ("host", "device")
    )
    for step in (1, 2, 3):
        batch, settings = drawn(name, seed + step), {"learning_rate": 0.01 / step, "step": step}
        ours, other = take(device, batch, **settings), take(host, batch, **settings)
        assert ours.updated
        np.testing.assert_allclose(ours[:2], other[:2], rtol=1e-6)  # weights are shares in float32
        np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=1e-6)


@each
@few
@given(seed=st.integers(0, 99))
def test_only_arrays_tell_batches_apart(name, seed):
    """The loss of a fixed batch is that of the batch, with no number in it but for those of its shapes."""
    objective, batch = OBJECTIVES[name], drawn(name, seed)
    fixed = objective.fixed(batch)
    assert fixed.total == (None if fixed.weights is None else 1.0)
    if fixed.weights is not None:
        assert fixed.weights.dtype == np.float32
        assert math.isclose(fixed.weights.sum(), 1.0, rel_tol=1e-6)
    if name in ("masked", "next-sentence"):
        assert fixed.targets.shape == fixed.places.shape
        asked = np.zeros(batch.weights.shape, np.float32)
        np.put_along_axis(asked, fixed.places, fixed.weights, axis=1)
        np.testing.assert_allclose(asked, batch.weights / batch.weights.sum(), rtol=1e-6)
        np.testing.assert_array_equal(fixed.targets, np.take_along_axis(batch.targets, fixed.places, axis=1))
    model = make(objective.mode)
    assert objective.loss(model, fixed).item() == pytest.approx(objective.loss(model, batch).item(), rel=1e-6)
    part = fixed.rows(1, 3)
    assert (len(part), part.tokens) == (2, fixed.tokens if fixed.total else part.targets.size)


def test_a_batch_without_a_target_changes_its_weights_by_decay_alone():
    batch = drawn("causal", 0)
    batch = dataclasses.replace(batch, weights=np.zeros(batch.targets.shape, np.float32))
    device, flat, _ = stepper("device", "causal")
    before = flat.values.copy()
    assert take(device, batch, **SETTINGS) == (0.0, 0.0, True)
    kept = np.where(np.arange(before.size) < flat.decay_end, 1 - 0.01 * 0.1, 1)
    np.testing.assert_allclose(flat.values, before * kept, rtol=1e-12)


class Poisoned(type(OBJECTIVES["causal"])):
    """An objective whose loss or gradient is not finite."""

    factor = 1.0

    def loss(self, model, batch, **options):
        return super().loss(model, batch, **options) * Tensor(np.array(self.factor))


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value")
@pytest.mark.parametrize("factor", [math.nan, math.inf, 1e200])  # with the last one only the gradient's square is not
def test_what_is_not_finite_updates_nothing(factor):
    objective = Poisoned()
    device, flat, optimizer = stepper("device", "causal", objective=objective, micros=2, clip=1.0)
    assert take(device, drawn("causal", 1), **SETTINGS).updated
    before = flat.values.copy(), optimizer.first.copy(), optimizer.second.copy()
    objective.factor = factor
    outcome = take(device, drawn("causal", 2), learning_rate=0.01, step=2)
    assert not outcome.updated
    assert not math.isfinite(outcome.loss + outcome.gradient_norm)
    for now, then in zip((flat.values, optimizer.first, optimizer.second), before):
        np.testing.assert_array_equal(now, then)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.sampled_from([0.0, 0.5, 1e3]), st.floats(0.5, 3))
def test_the_update_by_numbers_in_arrays_is_adamw(seed, step, clip, rate):
    rng = np.random.default_rng(seed)
    values, gradients, first = rng.standard_normal((3, 11))
    second, decay_end = rng.random(11), int(rng.integers(0, 12))
    settings = {"beta1": 0.8, "beta2": 0.9, "epsilon": 1e-6, "weight_decay": 0.3, "decay_end": decay_end}
    expected, found = ([array.copy() for array in (values, gradients, first, second)] for _ in range(2))
    norm = math.sqrt(gradients @ gradients)
    adamw(*expected, learning_rate=0.1 * rate, step=step, gradient_scale=clip_scale(norm, clip), **settings)
    numbers = np.array([0.1, 1 - 0.8**step, 1 - 0.9**step, clip])
    outcome = updates.judge(gradients, np.array(1.0), numbers)
    assert outcome[0] == pytest.approx(norm)
    working = np.zeros(11, np.float32)
    updates.adamw_recorded(*found, working, numbers=numbers, outcome=outcome, rate=rate, **settings)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_array_equal(working, found[0].astype(np.float32))


def test_gradients_are_gathered():
    out = np.array([1.0, 2.0, 3.0])
    updates.gather(np.ones((3, 1), np.float32), out, add=True)
    np.testing.assert_array_equal(out, [2, 3, 4])
    updates.gather(np.ones((1, 3), np.float32), out, add=False)
    np.testing.assert_array_equal(out, [1, 1, 1])


def test_batches_that_are_prepared_ahead_change_nothing(config, uninterrupted, tmp_path, monkeypatch):
    monkeypatch.setattr(HostStep, "ahead", True)
    train(config, Events(), out=tmp_path / "run")
    assert result(tmp_path / "run") == uninterrupted


def test_a_batch_that_fails_ahead_of_its_step_fails_at_its_step(config, tmp_path, monkeypatch):
    monkeypatch.setattr(HostStep, "ahead", True)
    whole = Trainer._prepare

    def broken(self, step):
        if step == 4:
            raise OSError("the text is gone")
        return whole(self, step)

    monkeypatch.setattr(Trainer, "_prepare", broken)
    events = Events()
    with pytest.raises(OSError, match="the text is gone"):
        train(config, events, out=tmp_path / "run")
    assert [event["step"] for event in events.of("train")] == [1, 2, 3]
    assert events.of("saved")[-1]["step"] == 3
