"""What a model computes in is one thing, what is kept of it another: float32, which every backend can go on with."""

import types

import numpy as np
import pytest
from tiny_runs import Events, result

from tests.objectives.made import make
from tinyformer import backends, load
from tinyformer.errors import UsageError
from tinyformer.training import checkpoint, updates
from tinyformer.training.choices import machine_for
from tinyformer.training.config import RunConfig
from tinyformer.training.fingerprint import differences, fingerprint
from tinyformer.training.optimizer import AdamW, FlatParameters
from tinyformer.training.rundir import open_run
from tinyformer.training.saving import RunState
from tinyformer.training.trainer import resume, train


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_a_precision_of_a_gpu_needs_one(config, tmp_path, precision, monkeypatch):
    asked = config.replace(precision=precision)
    with pytest.raises(
        UsageError, match=f"--precision {precision} needs a GPU, and --backend numpy computes on the CPU"
    ):
        train(asked.replace(backend="numpy"), Events(), out=tmp_path / "run")
    monkeypatch.setattr("tinyformer.backends.cupy.why_not", lambda: "there is no NVIDIA GPU")
    with pytest.raises(UsageError, match="there is no NVIDIA GPU; or leave --precision out"):
        train(asked, Events(), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_devices_are_gpus_that_are_there(config, tmp_path, monkeypatch):
    several = config.replace(devices=3)
    with pytest.raises(UsageError, match="--devices 3 is of GPUs, and the run is on the CPU; leave it out"):
        train(several, Events(), out=tmp_path / "run")
    monkeypatch.setattr(backends, "get", lambda name: types.SimpleNamespace(name="cupy", devices=lambda: 2))
    with pytest.raises(UsageError, match="--devices is 3, and there are 2 GPUs; lower it"):
        machine_for(several)
    with pytest.raises(UsageError, match=r"--devices \(2\) is more than --batch-size \(1\); lower it"):
        machine_for(config.replace(devices=2, batch_size=1))
    assert machine_for(config.replace(devices=2)) == "cupy"


def test_what_is_kept_is_float32():
    kept = {precision: RunConfig(precision=precision).dtype for precision in ("float32", "tf32", "bfloat16", "float64")}
    assert kept == {"float32": "float32", "tf32": "float32", "bfloat16": "float32", "float64": "float64"}


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_the_cpu_goes_on_in_float32_with_a_run_of_a_gpu(config, tmp_path, precision, monkeypatch):
    """A run like one of a GPU: its settings and its fingerprint. It needs no CuPy to be opened."""
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(
            RunState, "_fingerprint", lambda self: {"backend": "cupy", "precision": precision, "device": "H100"}
        )
        train(config.replace(steps=6, save_every=6, warmup=0), Events(), out=out)
    run = open_run(out)
    run.write_config(run.config().replace(precision=precision, backend="cupy"))
    assert load(out, backend="numpy").tokens.weight.dtype == np.float32
    if backends.available()["cupy"]:
        with pytest.raises(UsageError, match="or use --backend numpy"):
            resume(out, Events(), {"steps": 8})
    events = Events()
    resume(out, events, {"steps": 8, "backend": "numpy"})
    (warned,) = [event["message"] for event in events.of("warning") if "last bits" in event["message"]]
    assert f"precision was {precision} and is float32" in warned
    assert [line["step"] for line in result(out)[-1] if line["split"] == "train"] == list(range(1, 9))


def test_fingerprints_tell_precisions_apart():
    before, now = fingerprint("numpy", 1), fingerprint("numpy", 1, "float64")
    assert "precision was float32 and is float64" in differences(before, now)
    assert not differences(fingerprint("numpy", 1, "bfloat16"), before)  # which the CPU computes in float32
    assert not differences({"device": "H100"}, now)


def half(model):
    """The storage of a model that computes in float16, as stands in for bfloat16 where NumPy has no such numbers."""
    flat = FlatParameters(model.parameters(), working="float16")
    model.masters = flat.views(flat.values)
    return flat


def test_a_model_computes_with_a_rounded_copy():
    model = make("decoder", "float32")
    before = {name: tensor.numpy().copy() for name, tensor in model.parameters().items()}
    flat = half(model)
    assert (flat.values.dtype, flat.gradients.dtype, flat.working.dtype) == (np.float32, np.float32, np.float16)
    for name, tensor in model.parameters().items():
        assert np.shares_memory(tensor.array, flat.working)
        np.testing.assert_array_equal(tensor.numpy(), before[name].astype(np.float16))
        np.testing.assert_array_equal(model.values()[name], before[name])


def test_what_is_assigned_reaches_the_weights_and_their_copy():
    model = make("decoder", "float32")
    half(model)
    rng = np.random.default_rng(0)
    new = {name: rng.standard_normal(t.shape).astype(np.float32) for name, t in model.parameters().items()}
    model.assign(new)
    for name, tensor in model.parameters().items():
        np.testing.assert_array_equal(model.values()[name], new[name])
        np.testing.assert_array_equal(tensor.numpy(), new[name].astype(np.float16))


def test_small_steps_are_not_lost_in_the_rounding():
    model = make("decoder", "float32")
    flat = half(model)
    flat.values[...], flat.gradients[...] = 1.0, 1.0
    optimizer, ways = AdamW.of(flat, weight_decay=0.0), updates.of(flat)
    for step in range(1, 101):  # each a fifth of what lies between 1 and the next smaller float16
        numbers = np.array([1e-4, 1 - 0.9**step, 1 - 0.99**step, 0.0], np.float32)
        outcome = ways.judge(flat.gradients, np.float32(0.0), numbers)
        parts = flat.values, flat.gradients, optimizer.first, optimizer.second, flat.working
        settings = {"beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8, "weight_decay": 0.0, "decay_end": 0}
        ways.adamw_recorded(*parts, numbers=numbers, outcome=outcome, **settings)
    np.testing.assert_allclose(flat.values, 0.99, rtol=1e-4)
    np.testing.assert_array_equal(flat.working, flat.values.astype(np.float16))


@pytest.mark.parametrize("working", [None, "float16"])
def test_places_lie_where_a_device_wants_them(working, monkeypatch):
    monkeypatch.setattr(backends.get("numpy"), "alignment", 16, raising=False)
    model = make("encoder", "float32", width=6, hidden=5, vocabulary=37)
    before = {name: tensor.numpy().copy() for name, tensor in model.parameters().items()}
    flat = FlatParameters(model.parameters(), {"tokens.weight": 2.0}, working=working)
    used = flat.values if working is None else flat.working
    for array in (used, flat.values, flat.gradients):
        starts = [view.ctypes.data - array.ctypes.data for view in flat.views(array).values()]
        assert not [start for start in starts if start % 16]
    assert not [group for group, _ in flat.groups if group.start % 4]
    covered = np.zeros(flat.values.size, np.int64)
    for group, _ in flat.groups:
        covered[group] += 1
    for name, view in flat.views(covered).items():
        assert (view == 1).all(), name
    for name, tensor in model.parameters().items():
        np.testing.assert_array_equal(tensor.numpy(), before[name].astype(tensor.dtype))
    assert flat.gradients.size > sum(tensor.numpy().size for tensor in model.parameters().values())
    flat.gradients[...] = 0
    assert flat.gradient_norm() == 0.0


def test_a_checkpoint_knows_nothing_of_places(config, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(backends.get("numpy"), "alignment", 16, raising=False)
        train(config.replace(steps=6, warmup=0), Events(), out=out)
    weights, _ = checkpoint.load_weights(out)
    resume(out, Events(), {"steps": 12})
    again = tmp_path / "again"
    train(config.replace(steps=6, warmup=0), Events(), out=again)
    for name, array in checkpoint.load_weights(again)[0].items():
        np.testing.assert_allclose(weights[name], array, rtol=0, atol=1e-6)
    resume(again, Events(), {"steps": 12})
    for name, array in checkpoint.load_weights(again)[0].items():
        np.testing.assert_allclose(checkpoint.load_weights(out)[0][name], array, rtol=0, atol=1e-5)
