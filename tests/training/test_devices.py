"""Several devices take one step: it is the step of one device, and all end with the same weights."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.emulated import available, real_device
from tests.objectives.made import OBJECTIVES, draw_rows, generators, make
from tinyformer import models
from tinyformer.training.device_step import DeviceStep
from tinyformer.training.devices import SharedStep
from tinyformer.training.optimizer import AdamW, FlatParameters

each = pytest.mark.parametrize("name", OBJECTIVES)
few = settings(max_examples=settings.default.max_examples // 4 + 1)  # of five objectives each


def stepper(name, devices, backend="numpy", working=None, **options):
    objective = OBJECTIVES[name]
    drawn = make(objective.mode, "float32" if backend == "cupy" else "float64", dropout=0.3)
    model = drawn
    if backend == "cupy":
        model = models.build(drawn.config, backend=backend, seed=None)
        model.assign({name: tensor.numpy() for name, tensor in drawn.parameters().items()})
    flat = FlatParameters(model.parameters(), {"tokens.weight": 3.0}, working=working)
    parts = model, objective, flat, AdamW.of(flat, epsilon=1e-3)
    return SharedStep(*parts, devices=devices, **options) if devices > 1 else DeviceStep(*parts, **options)


def take(step, name, count, seed=0, rows=7):
    for number in range(1, count + 1):
        rng = np.random.default_rng([seed, number])
        batch = OBJECTIVES[name].corrupt(draw_rows(name, rng, rows), generators(rows, number))
        step.start(step.prepare(batch, number), learning_rate=0.01 / number, step=number)
        yield step.finish()


def state(replica):
    to_host = replica.flat.backend.to_host
    arrays = replica.flat.values, replica.flat.working, replica.optimizer.first, replica.optimizer.second
    return [to_host(array) for array in arrays if array is not None]


@each
@few
@given(seed=st.integers(0, 99), devices=st.integers(2, 4), micros=st.integers(1, 2))
def test_devices_share_a_step(name, seed, devices, micros):
    options = {"clip": 0.5, "seed": seed, "micros": micros}
    one, several = stepper(name, 1, **options), stepper(name, devices, **options)
    expected, found = list(take(one, name, 3, seed)), list(take(several, name, 3, seed))
    for ours, other in zip(found, expected, strict=True):
        assert ours.updated
        np.testing.assert_allclose(ours[:2], other[:2], rtol=1e-6)
    assert len(several.replicas) == devices
    first, *others = map(state, several.replicas)
    for arrays in others:
        for array, same in zip(arrays, first, strict=True):
            np.testing.assert_array_equal(array, same)
    np.testing.assert_allclose(first[0], state(one._first)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["causal", "next-sentence"])
def test_two_gpus_have_the_same_bits_by_graph_and_call_by_call(cupy_backend, name, precision):
    with contextlib.nullcontext() if real_device() else available(2):
        if cupy_backend.devices() < 2:
            pytest.skip("there is one device")
    options = {"working": "bfloat16" if precision == "bfloat16" else None, "micros": 2, "clip": 0.5}
    warned, ends = [], []
    for record in (True, False):
        step = stepper(name, 2, "cupy", record=record, warn=warned.append, **options)
        outcomes = list(take(step, name, 4))
        assert all(outcome.updated for outcome in outcomes)
        for device, replica in enumerate(step.replicas):
            with cupy_backend.on(device):
                ends.append([outcomes, *state(replica)])
    assert not warned
    first, *others = ends
    for end in others:
        assert end[0] == first[0]
        for array, same in zip(end[1:], first[1:], strict=True):
            np.testing.assert_array_equal(array, same)
    one = list(take(stepper(name, 1, "cupy", **options), name, 4))
    tolerance = 1e-5 if precision == "float32" else 1e-2
    np.testing.assert_allclose([found.loss for found in first[0]], [found.loss for found in one], rtol=tolerance)


@pytest.mark.skipif(real_device(), reason="a device does not count")
def test_devices_that_share_a_step_wait_for_nothing_but_its_outcome(cupy_backend):
    import cupy

    step = stepper("causal", 2, "cupy", working="bfloat16")
    list(take(step, "causal", 3))
    before, outcomes = dict(cupy.emulated.counts), take(step, "causal", 2)
    next(outcomes)
    seen = {what: cupy.emulated.counts[what] - before.get(what, 0) for what in cupy.emulated.counts}
    assert (seen["transfers"], seen["uploads"], seen.get("synchronisations", 0)) == (1, 0, 0)
