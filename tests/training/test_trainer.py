"""Whole runs, tiny ones: what they leave, what they tell, how they go on after an interruption or a failure."""

import dataclasses
import json
import math
import os
import signal

import numpy as np
import pytest
from tiny_runs import Events, result

from tinyformer import models, text
from tinyformer.analysis import counts
from tinyformer.errors import TinyformerError, UsageError
from tinyformer.training import checkpoint, data, loop
from tinyformer.training.rundir import open_run
from tinyformer.training.runlog import read_log
from tinyformer.training.signals import Stopped
from tinyformer.training.trainer import resume, train


@pytest.fixture
def out(tmp_path):
    return tmp_path / "run"


def test_a_run_leaves_and_tells_what_it_should(config, out):
    events = Events()
    end = train(config.replace(sample_every=6), events, out=out)
    assert sorted(path.name for path in out.iterdir() if path.name != ".lock") == [
        "checkpoints", "config.toml", "log.jsonl", "tokenizer.json", "train.tokens", "validation.tokens",
    ]  # fmt: skip
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-000009", "step-000012"]
    state = json.loads((out / "checkpoints" / "step-000012" / "state.json").read_text())
    assert state["tokens_seen"] == 12 * 10 * 8

    log = read_log(out / "log.jsonl")
    training = [line for line in log if line["split"] == "train"]
    assert [line["step"] for line in training] == list(range(1, 13))
    assert set(training[0]) == {"step", "split", "loss", "learning_rate", "gradient_norm", "tokens_per_second"}
    validation = [line for line in log if line["split"] == "validation"]
    assert [line["step"] for line in validation] == [4, 8, 12]
    assert {"step", "split", "loss", "bits_per_byte"} <= set(validation[0])

    start = events.of("start")[0]
    assert start["parameters"] == sum(p.array.size for p in models.build(open_model(out)).parameters().values())
    tokens = text.TokenFile.open(out / "train.tokens")
    ids = tokens.read(0, len(tokens))
    shares = np.bincount(ids)[np.bincount(ids) > 0] / len(ids)
    assert start["ln_v"] == math.log(len(set(ids.tolist())))
    assert start["unigram_entropy"] == pytest.approx(-(shares * np.log(shares)).sum())
    assert start["unigram_bits_per_byte"] == pytest.approx(-(shares * np.log2(shares)).sum())
    assert training[0]["loss"] == pytest.approx(start["ln_v"], abs=0.1)
    assert training[-1]["loss"] < training[0]["loss"]

    assert [event["step"] for event in events.of("step")] == list(range(1, 13))
    assert [event["step"] for event in events.of("sample")] == [6, 12]
    assert [event["step"] for event in events.of("saved")] == [0, 3, 6, 9, 12]
    assert events[-1] == end
    assert end["validation_loss"] == validation[-1]["loss"]
    assert f"tinyformer generate {out}" in end["next"]
    assert not events.of("warning")


def open_model(path):
    run = open_run(path)
    shape = data.model_config(run.config(), text.load_tokenizer(run.tokenizer_file).vocabulary_size)
    assert data.model_config(run.config()) == shape
    return shape


def test_the_last_validation_scores_every_token_once(config, out):
    train(config, Events(), out=out)
    tokens = text.TokenFile.open(out / "validation.tokens")
    weights, _ = checkpoint.load_weights(out)
    model = models.build(open_model(out))
    model.assign(weights)
    ids = tokens.read(0, len(tokens))
    losses = []
    for start in range(0, len(ids) - 1, 8):
        row = ids[start : start + 9]
        logits = model(row[None, :-1]).numpy()[0].astype(np.float64)
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        losses += [-logs[i, target] for i, target in enumerate(row[1:])]
    assert len(losses) == len(ids) - 1
    assert len(losses) % 8, "the last row should be a short one"
    expected = sum(losses) / len(losses)
    line = [line for line in read_log(out / "log.jsonl") if line["split"] == "validation"][-1]
    assert line["tokens"] == len(losses)
    assert line["loss"] == pytest.approx(expected, rel=1e-6)
    bits = expected * len(ids) / tokens.text_bytes / math.log(2)
    assert line["bits_per_byte"] == pytest.approx(bits, rel=1e-6)


def test_a_large_validation_is_spread_over_the_text_and_always_the_same(config, out):
    train(config.replace(steps=1), Events(), out=out)
    _, corpus = data.reopen(open_run(out), open_run(out).config())
    some = [batch.inputs for batch in corpus.validation_batches(3, 80)]
    assert [len(rows) for rows in some] == [3, 3, 3, 1]
    everything = np.concatenate([b.inputs for b in corpus.validation_batches(3, 10**9) if b.inputs.shape[1] == 8])
    places = [np.flatnonzero((everything == row).all(1))[0] for row in np.concatenate(some)]
    assert places == [i * len(everything) // 10 for i in range(10)]
    assert next(corpus.validation_batches(3, 1)).inputs.shape == (1, 8)


@pytest.mark.parametrize("step", [1, 5, 6, 11])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_the_resumed_run_equals_the_uninterrupted_one(config, out, uninterrupted, step, number):
    def interrupt(event):
        if event["event"] == "train" and event["step"] == step:
            os.kill(os.getpid(), number)

    stopped = Events(interrupt)
    with pytest.raises(Stopped, match=f"saved at step {step}; go on with: tinyformer train --resume") as raised:
        train(config, stopped, out=out)
    answer = "stopping after this step or batch, then saving; a second Ctrl-C leaves at once"
    assert stopped.of("warning") == [{"event": "warning", "message": answer}]
    assert raised.value.exit_code == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}[number]
    events = Events()
    end = resume(out, events)
    assert not events.of("warning")
    assert events.of("start")[0]["step"] == step
    assert end["step"] == 12
    assert result(out) == uninterrupted


def test_a_signal_before_the_training_leaves_nothing(config, out):
    def interrupt(event):
        if event["event"] == "prepare":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped, match="nothing is left behind"):
        train(config, Events(interrupt), out=out)
    assert not out.exists()


def test_from_a_damaged_checkpoint_the_one_before_goes_on(config, out, uninterrupted):
    train(config, Events(), out=out)
    (out / "checkpoints" / "step-000012" / "optimizer.safetensors").write_bytes(b"")
    with open(out / "log.jsonl", "ab") as log:
        log.write(b'{"step": 12, "torn')
    events = Events()
    resume(out, events)
    assert "optimizer.safetensors is damaged" in events.of("warning")[0]["message"]
    assert "going on from step-000009" in events.of("warning")[0]["message"]
    assert result(out) == uninterrupted


def test_a_damaged_checkpoint_is_removed_before_the_good_one_that_took_its_place(config, out):
    train(config, Events(), out=out)
    (out / "checkpoints" / "step-000012" / "model.safetensors").write_bytes(b"")
    resume(out, Events(), {"steps": 13, "save_every": 100})
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-000009", "step-000013"]


def test_a_finished_run_can_be_trained_on(config, out):
    train(config, Events(), out=out)
    before = result(out)
    events = Events()
    assert resume(out, events)["step"] == 12
    assert "give a larger --steps" in events.of("warning")[0]["message"]
    assert result(out) == before
    assert resume(out, Events(), {"steps": 14, "threads": 2})["step"] == 14
    assert open_run(out).config().steps == 14
    with pytest.raises(UsageError, match="has done 14 steps; give --steps 14 or more"):
        resume(out, Events(), {"steps": 13})
    with pytest.raises(UsageError, match="keeps its --width 8"):
        resume(out, Events(), {"width": 16})
    assert result(out)[0] == "step-000014"


def test_what_may_change_the_last_bits_is_told(config, out):
    train(config.replace(steps=1), Events(), out=out)
    events = Events()
    resume(out, events, {"steps": 2, "threads": 1})
    assert "threads was 2 and is 1: the last bits" in events.of("warning")[0]["message"]
    path = out / "config.toml"
    path.write_text(path.read_text().replace("seed = 0", "seed = 1"))
    resume(out, events, {"steps": 3})
    assert "changed by hand" in events.of("warning")[-1]["message"]


def test_a_resume_with_other_sizes_by_hand_is_one_error(config, out):
    train(config.replace(steps=1), Events(), out=out)
    path = out / "config.toml"
    path.write_text(path.read_text().replace("hidden = 16", "hidden = 24"))
    with open(out / "log.jsonl", "a") as log:
        log.write('{"step": 2, "split": "train"}\n')  # as a killed run leaves it, which had not saved step 2
    before = path.read_bytes(), (out / "log.jsonl").read_bytes()
    with pytest.raises(TinyformerError, match=r"model\.safetensors is not for this model: .* should be") as raised:
        resume(out, Events(), {"steps": 2})
    assert "\n" not in str(raised.value)
    assert (path.read_bytes(), (out / "log.jsonl").read_bytes()) == before


def test_a_run_knows_its_files_from_everywhere(config, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text.make_tokenizer("bytes", []).save("tk.json")
    train(config.replace(steps=1, tokenizer="tk.json"), Events(), out=out)
    assert open_run(out).config().tokenizer == str(tmp_path / "tk.json")


def test_a_run_without_its_tokenizer_or_text_is_told(config, out):
    train(config.replace(steps=1), Events(), out=out)
    content = (out / "train.tokens").read_bytes()
    for name, begin in {
        "train.tokens": ".*train.tokens should have .* but has",
        "validation.tokens": "cannot open .*validation.tokens: No such file or directory",
        "tokenizer.json": "the run has lost its tokenizer.json",
    }.items():
        (out / name).unlink()
        if name == "train.tokens":
            (out / name).write_bytes(content[:-1])
        with pytest.raises(TinyformerError, match=f"^{begin}.*start a new run") as raised:
            resume(out, Events())
        assert raised.value.exit_code == 1
        (out / name).write_bytes(content)


def test_a_resume_names_the_run_and_not_a_checkpoint(config, out):
    train(config.replace(steps=1), Events(), out=out)
    with pytest.raises(UsageError, match=rf"from the newest checkpoint; name the run: tinyformer .* {out}$"):
        resume(out / "checkpoints" / "step-000000", Events())


def test_accumulation_equals_the_big_batch(config, tmp_path):
    """In float64 and without dropout, however a step's rows are cut up, the weights agree to rounding."""
    base = config.replace(model={**config.model, "dropout": 0.0}, precision="float64", seed=3)
    ways = [{"batch_size": 12, "grad_accumulation": 1, "threads": 1}]
    ways += [{"batch_size": 4, "grad_accumulation": 3, "threads": 1}]
    ways += [{"batch_size": 1, "grad_accumulation": 12, "threads": 1}]
    ways += [{"batch_size": 6, "grad_accumulation": 2, "threads": 4}]
    found = []
    for i, way in enumerate(ways):
        train(base.replace(**way), Events(), out=tmp_path / str(i))
        found.append(checkpoint.load_weights(tmp_path / str(i))[0])
    for other in found[1:]:
        for name, array in found[0].items():
            np.testing.assert_allclose(other[name], array, rtol=1e-9, atol=1e-11)


def test_a_dry_run_makes_one_step_and_leaves_nothing(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    events = Events()
    train(config, events, dry_run=True)
    assert not list(tmp_path.iterdir())
    assert [event["event"] for event in events if event["event"] != "prepare"] == ["dry_run", "train", "end"]
    facts = events.of("dry_run")[0]
    assert sum(math.prod(shape) for shape in facts["shapes"].values()) == facts["parameters"]
    assert sum(facts["parameters_by_part"].values()) == facts["parameters"]
    assert facts["flops_per_step"] > 0
    assert facts["memory_per_step"]["weights"] == 4 * facts["parameters"]
    assert facts["memory_per_step"]["gradients of workers"] == config.threads * 4 * facts["parameters"]


@pytest.mark.parametrize("resumed", [False, True])
def test_the_end_compares_the_speed_of_the_steps_with_that_of_the_machine(config, out, monkeypatch, resumed):
    monkeypatch.setattr(loop, "gemm_rate", lambda threads, *, dtype: {"float32": 1e9}[dtype] * threads)
    monkeypatch.setattr(loop, "LONG_ENOUGH", 0.0)
    events = Events()
    if resumed:
        train(dataclasses.replace(config, steps=2), Events(), out=out)
    end = resume(out, events, {"steps": config.steps}) if resumed else train(config, events, out=out)
    start, told = events.of("start")[0], events.of("train")
    busy = sum(start["tokens_per_step"] / event["tokens_per_second"] for event in told)  # a line for each step
    flops = len(told) * counts.needed_flops(models.ModelConfig(**start["model"]), config.rows_per_step)
    assert end["flops_per_second"] == pytest.approx(flops / busy)
    assert end["peak_flops_per_second"] == 2e9


def test_a_short_run_has_no_speed_to_compare(config, out):
    end = train(config, Events(), out=out)
    assert end["flops_per_second"] is end["peak_flops_per_second"] is None


@pytest.mark.parametrize(
    "change",
    [{"batch_size": 10**9}, {"grad_accumulation": 10**9}, {"model": {"width": 1 << 20, "heads": 1, "layers": 2}}],
)
def test_a_run_that_no_machine_can_hold_is_refused(config, out, change):
    message = r"^this run needs at least [\d,.]+ GB and the machine has [\d,.]+ GB; a smaller model"
    with pytest.raises(TinyformerError, match=message):
        train(config.replace(**change), Events(), out=out)
    assert not out.exists()
    events = Events()
    with pytest.raises(TinyformerError, match=message):
        train(config.replace(**change), events, dry_run=True)
    assert sum(events.of("dry_run")[0]["memory_per_step"].values()) > 0


def test_one_batch_is_learnt_by_heart(config, out):
    steps = 150
    events = Events()
    changed = config.replace(
        overfit_one_batch=True, steps=steps, eval_every=steps, save_every=steps, batch_size=2, grad_accumulation=1,
        learning_rate=0.03, model={**config.model, "width": 32, "hidden": 64, "dropout": 0.0},
    )  # fmt: skip
    train(changed, events, out=out)
    assert events.of("train")[0]["loss"] > 2
    assert events.of("train")[-1]["loss"] < 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": ()}, "no text to train on"),
        ({"files": ("/none.txt",)}, "no such file: /none.txt"),
        ({"preset": "tinny"}, "tiny"),
        ({"model": {"layers": 0}}, "layers must be at least 1"),
        ({"model": {"layers": 10**23}}, "layers must be at most 16384, and is 1"),
        ({"model": {"width": 10**13}}, "width must be at most 1048576, and is 1"),
        ({"model": {"layers": "four"}}, "layers in [model] should be of type int, and is 'four'"),
        ({"model": {"width": 10, "heads": 3}}, "3 heads do not divide"),
        ({"model": {"vocabulary": 5}}, "[model] has a vocabulary of 5"),
        ({"model": {"context": 100_000}}, "--context"),
        ({"model": {"wdith": 3}}, "width"),
        ({"tokenizer": "byte"}, "bytes"),
        ({"backend": "numpyy"}, "unknown backend 'numpyy'"),
        ({"backend": "cupy"}, "cupy"),
        ({"mode": "decodr"}, "decoder"),
        ({"validation": "/none.txt"}, "/none.txt"),
    ],
)
def test_what_cannot_be_trained_is_told_and_leaves_nothing(config, out, change, message):
    with pytest.raises(UsageError) as raised:
        train(config.replace(**change), Events(), out=out)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not out.exists()
