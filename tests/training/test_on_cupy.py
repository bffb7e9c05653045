"""Training on a device: NumPy's losses, the same bits by graph and call by call, and runs that change the machine."""

import contextlib
import dataclasses
import math
import os
import shutil
import signal

import numpy as np
import pytest
from tiny_runs import Events, result

from tests.emulated import available, real_device
from tests.objectives.made import OBJECTIVES, SHAPES, V, draw_rows, generators
from tinyformer import backends, load, tensor
from tinyformer.analysis.evaluation import evaluate_file
from tinyformer.errors import TinyformerError
from tinyformer.models import ModelConfig, build
from tinyformer.text import load_tokenizer
from tinyformer.training import checkpoint, data
from tinyformer.training.device_step import DeviceStep
from tinyformer.training.optimizer import AdamW, FlatParameters
from tinyformer.training.rundir import open_run
from tinyformer.training.signals import Stopped
from tinyformer.training.trainer import resume, train

ml_dtypes = pytest.importorskip("ml_dtypes")
pytestmark = pytest.mark.usefixtures("cupy_backend")

MODES = {"decoder": "causal", "encoder": "next-sentence", "encoder-decoder": "span-corruption"}
PRECISIONS = ("float32", "tf32", "bfloat16")


def losses(path):
    return {line["step"]: line["loss"] for line in result(path)[-1] if line["split"] == "train"}


@pytest.mark.parametrize("mode", MODES)
def test_fifty_steps_have_the_losses_of_the_cpu(configs, tmp_path, mode):
    """With dropout, accumulation, and rows that are ragged where the objective makes such."""
    settings = {"steps": 50, "eval_every": 50, "save_every": 50, "sample_every": 50, "warmup": 5}
    config, found = configs[MODES[mode]].replace(**settings), {}
    for backend in ("numpy", "cupy"):
        events = Events()
        train(config.replace(backend=backend), events, out=tmp_path / backend)
        assert not events.of("warning")
        found[backend] = [*losses(tmp_path / backend).values(), events.of("end")[0]["validation_loss"]]
    assert len(found["cupy"]) == 51
    np.testing.assert_allclose(found["cupy"], found["numpy"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_fewer_digits_give_nearly_the_same_losses_and_whole_weights(configs, tmp_path, precision):
    config = configs["causal"].replace(sample_every=12)
    train(config, Events(), out=tmp_path / "numpy")
    train(config.replace(backend="cupy", precision=precision), Events(), out=tmp_path / "cupy")
    expected, found = losses(tmp_path / "numpy"), losses(tmp_path / "cupy")
    assert found == pytest.approx(expected, abs=1e-3 if precision == "tf32" else 5e-3)
    assert found != expected
    for name, array in checkpoint.load_weights(tmp_path / "cupy")[0].items():
        assert array.dtype == np.float32
        if array.size > 8:  # with more digits than a bfloat16 has
            assert (array.view(np.uint32) & 0xFFFF).any(), name
    assert load(tmp_path / "cupy", backend="numpy").tokens.weight.dtype == np.float32


def test_a_run_on_two_gpus_goes_on_with_one_and_on_the_cpu(configs, tmp_path):
    """The losses of one GPU but for rounding, and the same bits after an interruption."""
    with contextlib.nullcontext() if real_device() else available(2):
        if backends.get("cupy").devices() < 2:
            pytest.skip("there is one device")
        config = configs["causal"].replace(backend="cupy", devices=2, steps=6, save_every=3, warmup=0)
        for name in ("whole", "parts"):
            train(config, Events(), out=tmp_path / name)
        shutil.rmtree(tmp_path / "parts" / "checkpoints" / "step-000006")
        resume(tmp_path / "parts", events := Events())
        assert not events.of("warning")
        assert result(tmp_path / "parts") == result(tmp_path / "whole")
        train(config.replace(backend="numpy", devices=1), Events(), out=tmp_path / "numpy")
        assert losses(tmp_path / "whole") == pytest.approx(losses(tmp_path / "numpy"), abs=1e-4)
        resume(tmp_path / "whole", events := Events(), {"steps": 7, "devices": 1})
        assert "devices was 2 and is 1" in events.of("warning")[0]["message"]
        resume(tmp_path / "parts", Events(), {"steps": 7, "backend": "numpy"})
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=1e-4)


class Steps:
    """Some steps on the device, in which everything changes that may: weights, keys, batches and the learning rate."""

    def __init__(self, name, precision, *, record, kind=DeviceStep, **choices):
        self.objective = OBJECTIVES[name]
        shape = {"vocabulary": V, "context": 24, "layers": 1, "heads": 2, "width": 16, "hidden": 24, "dropout": 0.2}
        config = ModelConfig(mode=self.objective.mode, **shape | SHAPES[self.objective.mode] | choices)
        model = build(config, backend="cupy", seed=3)
        working = "bfloat16" if precision == "bfloat16" else None
        self.flat = FlatParameters(model.parameters(), working=working)
        self.optimizer = AdamW.of(self.flat, weight_decay=0.3)
        parts = model, self.objective, self.flat, self.optimizer
        rounding = "tf32" if precision == "tf32" else "float32"
        self.warned = []
        options = {"micros": 2, "clip": 0.5, "seed": 7, "rounding": rounding, "warn": self.warned.append}
        self.step, self.name = kind(*parts, record=record, **options), name

    def batch(self, step):
        rng = np.random.default_rng(step)
        batch = self.objective.corrupt(draw_rows(self.name, rng, 6), generators(6, step))
        if self.name == "causal":
            weights = rng.random(batch.targets.shape).astype(np.float32)
            weights[2] = 0
            batch = dataclasses.replace(batch, weights=weights)
        return batch

    def take(self, count):
        for step in range(1, count + 1):
            self.step.start(self.step.prepare(self.batch(step), step), learning_rate=0.02 / step, step=step)
            yield self.step.finish()

    def state(self):
        arrays = self.flat.values, self.flat.working, self.optimizer.first, self.optimizer.second
        return [self.flat.backend.to_host(array) for array in arrays if array is not None]


def assert_alike(kind=DeviceStep, name="causal", precision="float32"):
    graph, eager = (Steps(name, precision, record=record, kind=kind) for record in (True, False))
    assert list(graph.take(5)) == list(eager.take(5))
    assert not graph.warned
    for ours, other in zip(graph.state(), eager.state(), strict=True):
        np.testing.assert_array_equal(ours, other)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["causal", "next-sentence", "span-corruption"])
def test_a_replayed_step_has_the_bits_of_one_that_is_called(name, precision):
    assert_alike(name=name, precision=precision)


class BakedIn(DeviceStep):
    """What a recorded step must not do: take the learning rate from the host."""

    def start(self, prepared, *, learning_rate, step):
        self.rate = learning_rate
        super().start(prepared, learning_rate=learning_rate, step=step)

    def _step(self, arrays):
        xp = self._xp
        rate = xp.full((1,), self.rate, dtype=xp.float32)
        return super()._step(arrays | {"numbers": xp.concat([rate, arrays["numbers"][1:]])})


def test_a_number_of_the_host_in_a_recorded_step_would_be_seen():
    with pytest.raises(AssertionError):
        assert_alike(BakedIn)


@pytest.mark.skipif(real_device(), reason="a device does not count")
@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("name", ["causal", "masked", "next-sentence", "span-corruption", "seq2seq"])
def test_a_step_waits_for_nothing_but_its_outcome(name, record):
    import cupy

    steps = Steps(name, "bfloat16", record=record)
    list(steps.take(2))
    for step in (1, 2, 3):
        prepared = steps.step.prepare(steps.batch(step), step)
        before = dict(cupy.emulated.counts)
        steps.step.start(prepared, learning_rate=0.01, step=step)
        seen = {what: cupy.emulated.counts[what] - before.get(what, 0) for what in cupy.emulated.counts}
        assert (seen["transfers"], seen.get("uploads", 0), seen.get("synchronisations", 0)) == (0, 0, 0)
        steps.step.finish()
        assert cupy.emulated.counts["transfers"] == before["transfers"] + 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_not_finite_updates_nothing(precision):
    steps = Steps("causal", precision, record=True)
    assert all(outcome.updated for outcome in steps.take(3))
    for array in (steps.flat.values, steps.flat.working):
        if array is not None:
            array[5] = math.nan
    before = steps.state()
    assert [outcome.updated for outcome in steps.take(2)] == [False, False]
    for now, then in zip(steps.state(), before):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("ways", [("cupy", "numpy"), ("numpy", "cupy")])
def test_a_run_goes_on_with_the_other_backend(configs, tmp_path, ways):
    config = configs["masked"]
    train(config, Events(), out=tmp_path / "whole")
    config, out = config.replace(backend=ways[0], steps=6, warmup=0), tmp_path / "run"
    train(config, Events(), out=out)
    events = Events()
    resume(out, events, {"steps": 12, "backend": ways[1]})
    assert any(f"backend was {ways[0]} and is {ways[1]}" in event["message"] for event in events.of("warning"))
    assert open_run(out).config().backend == ways[1]
    train(config.replace(backend="numpy"), Events(), out=tmp_path / "other")
    resume(tmp_path / "other", Events(), {"steps": 12})
    assert losses(out) == pytest.approx(losses(tmp_path / "other"), abs=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_interrupted_run_ends_with_the_same_bits(configs, tmp_path, precision):
    config = configs["causal"].replace(backend="cupy", precision=precision, steps=8)
    train(config, Events(), out=tmp_path / "whole")

    def interrupt(event):
        if event["event"] == "train" and event["step"] == 5:
            os.kill(os.getpid(), signal.SIGINT)

    again = tmp_path / "again"
    with pytest.raises(Stopped, match="saved at step 5"):
        train(config, Events(interrupt), out=again)
    events = Events()
    resume(again, events)
    assert not events.of("warning")
    assert result(again) == result(tmp_path / "whole")


def test_a_layer_that_waits_only_costs_time(configs, tmp_path, monkeypatch):
    """Somebody's own objective that looks at a number: one warning, and the same run."""
    config = configs["causal"].replace(backend="cupy", steps=4)
    train(config, Events(), out=tmp_path / "usual")
    loss = type(OBJECTIVES["causal"]).loss

    def waiting(self, model, batch, **options):
        found = loss(self, model, batch, **options)
        assert math.isfinite(found.item())
        return found

    monkeypatch.setattr(type(OBJECTIVES["causal"]), "loss", waiting)
    events = Events()
    train(config, events, out=tmp_path / "waiting")
    (warned,) = events.of("warning")
    assert "cannot be recorded" in warned["message"]
    assert result(tmp_path / "waiting") == result(tmp_path / "usual")


def test_a_dry_run_tells_of_the_memory_of_the_gpu(configs, tmp_path, cupy_backend, monkeypatch):
    config, parts = configs["causal"].replace(backend="cupy"), {}
    for precision in ("float32", "bfloat16"):
        events = Events()
        train(config.replace(precision=precision), events, dry_run=True)
        parts[precision] = events.of("dry_run")[0]["memory_per_step"]
    whole, half = parts["float32"], parts["bfloat16"]
    assert half["weights, rounded"] * 2 == whole["weights"] == half["weights"]
    assert half["activations"] == pytest.approx(whole["activations"] / 2, abs=1)
    monkeypatch.setattr(cupy_backend, "memory", lambda: (1000, 1 << 30, 0), raising=False)
    with pytest.raises(TinyformerError, match=r"needs at least 0.0 GB and the GPU has 0.0 GB free; a smaller model"):
        train(config, Events(), out=tmp_path / "run")


SHAPES_OF_ALL_KINDS = [
    ("causal", {"positions": "rotary", "norm": "rms", "gated": True, "activation": "silu", "tied": False}),
    ("causal", {"positions": "sinusoidal", "norm_position": "post", "activation": "relu", "scaled_embedding": True}),
    ("next-sentence", {"activation": "gelu-exact", "embedding_norm": True}),
    ("span-corruption", {"scaled_head": True, "scaled_scores": False, "head_width": 4}),
]


@pytest.mark.parametrize(("name", "choices"), SHAPES_OF_ALL_KINDS)
def test_a_step_in_bfloat16_makes_nothing_of_another_type(name, choices, monkeypatch):
    """But for the loss, and what comes from it; forward here, backward by the engine, which holds gradients to it."""
    made, note = [], tensor.Node.__init__

    def noting(self, name, sources, vjp, out):
        made.append((name, out.dtype, out.shape))
        note(self, name, sources, vjp, out)

    monkeypatch.setattr(tensor.Node, "__init__", noting)
    steps = Steps(name, "bfloat16", record=True, **choices)
    assert all(outcome.updated for outcome in steps.take(2))
    assert not steps.warned
    assert len(made) > 20
    others = {name for name, dtype, shape in made if dtype != ml_dtypes.bfloat16 and shape != ()}
    assert not others


@pytest.mark.parametrize("mode", MODES)
def test_a_model_is_loaded_and_used_on_either_backend(configs, tmp_path, mode):
    config, out = configs[MODES[mode]].replace(steps=1), tmp_path / "run"
    train(config, Events(), out=out)
    tokenizer = load_tokenizer(out / "tokenizer.json")
    loaded = [load(out, backend=backend) for backend in ("numpy", "cupy")]
    objective, _ = data.open_training(out, tokenizer, loaded[0].config)
    scores = [evaluate_file(model, tokenizer, config.files[0], objective=objective) for model in loaded]
    assert scores[1].loss == pytest.approx(scores[0].loss, abs=1e-5)
    ids = np.arange(6).reshape(2, 3)
    arguments = (ids, ids) if mode == "encoder-decoder" else (ids,)
    expected, found = (model(*arguments).numpy() for model in loaded)
    np.testing.assert_allclose(found, expected, atol=1e-5)
