"""Training on whole texts: batches cut and shared in any way, the step of a device, a frozen body, what is learnt."""

import numpy as np
import pytest

from tests.tasks.whole import drawn, each, made
from tinyformer import backward, nn
from tinyformer.models import build
from tinyformer.tasks import TASKS, Example
from tinyformer.training.device_step import DeviceStep
from tinyformer.training.optimizer import AdamW, FlatParameters
from tinyformer.training.step import HostStep, Workers, accumulate_gradient


def gradient(task, model, batch, *, micros, workers):
    reached = {path: p for path, p in model.parameters().items() if not path.startswith(task.unreached)}
    flat = FlatParameters(reached)
    with Workers(workers) as threads:
        loss = accumulate_gradient(model, task, flat, batch, micros=micros, seed=1, step=1, workers=threads)
    return loss, flat.gradients.copy()


@each
def test_a_batch_however_it_is_cut_and_shared(name, mode):
    """With dropout, which each row draws for itself."""
    task, model = made(name, mode, dropout=0.3)
    batch = drawn(task, 2)
    loss, expected = gradient(task, model, batch, micros=1, workers=1)
    for micros, workers in ((3, 1), (1, 2), (2, 3)):
        other, found = gradient(task, model, batch, micros=micros, workers=workers)
        assert other == pytest.approx(loss, rel=1e-12)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert loss != pytest.approx(task.loss(model, batch).item(), rel=1e-5)


@each
def test_a_device_takes_the_step_of_the_host(name, mode):
    steps = []
    for kind in ("host", "device"):
        task, model = made(name, mode, dropout=0.3)
        reached = {path: p for path, p in model.parameters().items() if not path.startswith(task.unreached)}
        flat = FlatParameters(reached)
        parts = model, task, flat, AdamW.of(flat, epsilon=1e-3)
        shared = {"micros": 2, "seed": 1}
        step = DeviceStep(*parts, **shared) if kind == "device" else HostStep(*parts, Workers(1), **shared)
        for number in (1, 2):
            batch = drawn(task, number)
            if kind == "host":  # dropout is drawn for the padding, too
                batch = task.fixed(batch)
            step.start(step.prepare(batch, number), learning_rate=0.01, step=number)
            outcome = step.finish()
        steps.append((outcome[:2], flat.values.copy()))
    np.testing.assert_allclose(steps[0][0], steps[1][0], rtol=1e-6)
    np.testing.assert_allclose(steps[0][1], steps[1][1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["encoder", "decoder"])
@pytest.mark.parametrize("name", ["classify", "regress"])
def test_a_frozen_body_gets_no_gradient(name, mode):
    task, model = made(name, mode, next_sentence=False) if mode == "encoder" else made(name, mode)
    model.frozen = True
    reached = backward(task.loss(model, drawn(task, 0))).keys()
    assert {path for path, p in model.parameters().items() if p in reached} == {
        path for path in model.parameters() if path.startswith("head.")
    }


@each
def test_a_model_learns_the_task(name, mode):
    """From texts of which one letter tells the answer."""
    task, _ = made(name, mode, width=16)
    if name == "regress":
        task = TASKS[name](task.tokenizer, task.config, labels=("1.0", "0.816"))
    init = nn.Initializer(seed=0)
    model = task.model(build(task.config, seed=2), init)
    rng, rows, known = np.random.default_rng(0), [], []
    for number in range(48):
        text = "abc"[number % 3] + "".join(map(chr, rng.integers(100, 123, 3)))
        label = float(number % 3) if name == "regress" else "abc"[number % 3]
        known.append(Example((text, "x") if name == "pair" else (text,), label))
        rows += task.rows(known[-1])
    batch = task.corrupt(rows)
    reached = {path: p for path, p in model.parameters().items() if not path.startswith(task.unreached)}
    flat = FlatParameters(reached)
    step = HostStep(model, task, flat, AdamW.of(flat), Workers(1))
    for number in range(1, 61):
        step.start(step.prepare(batch, number), learning_rate=0.02, step=number)
        step.finish()
    outputs = task.outputs(model, batch)
    answers = [task.answer(example, [output]) for example, output in zip(known, outputs)]
    assert task.measure(known, answers)[task.best] > 0.95
