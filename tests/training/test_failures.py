"""What goes wrong while training: a loss that is no number, a disk that is full. Each is told and costs little."""

import errno
import json
import math
import os
import shutil
import signal

import numpy as np
import pytest
from tiny_runs import Events, result

from tinyformer import files
from tinyformer.errors import TinyformerError
from tinyformer.objectives import OBJECTIVES, CausalLM
from tinyformer.tensor import Tensor
from tinyformer.training import checkpoint, data, samples
from tinyformer.training.rundir import open_run
from tinyformer.training.runlog import read_log
from tinyformer.training.signals import Stopped
from tinyformer.training.trainer import resume, train


@pytest.fixture
def out(tmp_path):
    return tmp_path / "run"


class Sick(CausalLM):
    """A loss that is not a number when the batch begins with one of the given tokens."""

    bad = ()

    def loss(self, model, batch, **options):
        loss = super().loss(model, batch, **options)
        sick = options.get("rng") is not None and tuple(batch.inputs[0].tolist()) in self.bad
        return loss * Tensor(np.array(math.nan, np.float32)) if sick else loss


@pytest.fixture
def sick_at(config, monkeypatch, tmp_path):
    """Makes the loss of the given steps not a number."""
    probe = tmp_path / "probe"
    train(config.replace(steps=1), Events(), out=probe)
    _, corpus = data.reopen(open_run(probe), open_run(probe).config())

    def make(*steps):
        bad = {tuple(corpus.batch(step, config.rows_per_step).inputs[0].tolist()) for step in steps}
        monkeypatch.setitem(OBJECTIVES, "causal", type("Sick", (Sick,), {"bad": bad}))

    return make


def test_a_loss_that_is_no_number_skips_the_update_and_is_told(config, out, sick_at):
    sick_at(4)
    events = Events()
    train(config, events, out=out)
    assert "step 4: the loss or gradient is not finite" in events.of("warning")[0]["message"]
    line = next(line for line in read_log(out / "log.jsonl") if line["step"] == 4)
    assert line["loss"] is None
    assert line["skipped"] is True
    state = json.loads((out / "checkpoints" / "step-000012" / "state.json").read_text())
    assert state["tokens_seen"] == 11 * 10 * 8


def test_three_in_a_row_stop_the_run_with_the_last_good_state(config, out, sick_at, monkeypatch, uninterrupted):
    sick_at(5, 6, 7)
    with pytest.raises(TinyformerError, match=r"3 steps in a row; the state of step 4 is saved") as raised:
        train(config, Events(), out=out)
    assert "--learning-rate 0.003 --clip 0.5" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert checkpoint.newest(out / "checkpoints").step == 4
    monkeypatch.setitem(OBJECTIVES, "causal", CausalLM)
    resume(out, Events())
    assert result(out) == uninterrupted


@pytest.mark.parametrize("every", [1, 4])
def test_a_validation_of_steps_that_were_undone_is_made_again(config, out, tmp_path, sick_at, monkeypatch, every):
    """Of the weights before them; and a signal in the one that comes next loses none."""
    train(config.replace(eval_every=every), Events(), out=tmp_path / "quiet")
    sick_at(8, 9, 10)
    with pytest.raises(TinyformerError, match="the state of step 7 is saved"):
        train(config.replace(eval_every=every), Events(), out=out)
    monkeypatch.setitem(OBJECTIVES, "causal", CausalLM)
    sent = []

    def interrupt(event):
        if event["event"] == "validating" and event["step"] == 8 and not sent:
            sent.append(signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        resume(out, Events(interrupt))
    resume(out, Events())
    assert result(out) == result(tmp_path / "quiet")


def test_the_lower_rate_is_a_plain_number(config, out, sick_at):
    sick_at(1, 2, 3)
    with pytest.raises(TinyformerError, match="--learning-rate 30 --clip"):
        train(config.replace(learning_rate=90.0), Events(), out=out)


def test_a_disk_that_is_full_for_a_while_costs_only_checkpoints(config, out, monkeypatch, uninterrupted):
    free = shutil._ntuple_diskusage(1, 1, 0)

    def fill(event):
        if event["event"] == "train" and event["step"] in (2, 8):
            monkeypatch.setattr(
                files.shutil, "disk_usage", lambda path, n=event["step"]: free if n == 2 else real(path)
            )

    real, events = shutil.disk_usage, Events(fill)
    train(config, events, out=out)
    messages = [event["message"] for event in events.of("warning")]
    assert len(messages) == 2
    assert all("are free; free some space" in message and "training goes on" in message for message in messages)
    assert [event["step"] for event in events.of("saved")] == [0, 9, 12]
    assert result(out) == uninterrupted


def test_a_disk_that_stays_full_ends_in_one_line_and_loses_nothing_saved(config, out, monkeypatch, uninterrupted):
    def full(descriptor, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill(event):
        if event["event"] == "train" and event["step"] == 8:
            monkeypatch.setattr(files.os, "write", full)

    with pytest.raises(files.WriteError, match=r"step-000012: No space left on device; free some space.*from step 6"):
        train(config, Events(fill), out=out)
    monkeypatch.undo()
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-000003", "step-000006"]
    resume(out, Events())
    assert result(out) == uninterrupted


def test_a_full_disk_at_the_start_leaves_nothing(config, out, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(files.WriteError, match="are free"):
        train(config, Events(), out=out)
    assert not out.exists()


def test_a_sample_that_fails_at_the_end_costs_nothing(config, out, monkeypatch):
    def fail(*_, **__):
        raise MemoryError("a sample")

    monkeypatch.setattr(samples, "sample_text", fail)
    with pytest.raises(MemoryError, match="a sample"):
        train(config.replace(sample_every=100, save_every=100), Events(), out=out)
    found = checkpoint.newest(out / "checkpoints")
    assert found.step == found.state["validation"]["step"] == 12
