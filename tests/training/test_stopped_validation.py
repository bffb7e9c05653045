"""A signal ends a validation soon, and nothing is lost: it is made again, and all numbers are those of a quiet run."""

import json
import os
import shutil
import signal
import time

import pytest
from tiny_runs import Events, result
from tiny_tasks import settings

import tinyformer
from tinyformer.files import WriteError
from tinyformer.tasks.text2text import Text2Text
from tinyformer.training import checkpoint
from tinyformer.training.finetuning import evaluate
from tinyformer.training.rundir import open_run
from tinyformer.training.saving import RunState
from tinyformer.training.signals import Stopped
from tinyformer.training.trainer import resume, train

EVERY = {"text": 4, "classify": 12, "text2text": 6}  # steps between validations
LAST = {"text": 12, "classify": 48, "text2text": 12}
MODE = {"classify": "encoder", "text2text": "encoder-decoder"}


class Killed(BaseException):
    """Ends a process at once, as far as files can tell."""


@pytest.fixture(scope="module")
def runs(config, origins, examples, tmp_path_factory):
    """Of each kind, the settings and a run without an interruption, with what it told."""
    made = {}
    for kind in EVERY:
        more = {"epochs": 2, "batch_size": 16} if kind == "text2text" else {}
        chosen = config if kind == "text" else settings(origins[MODE[kind]], examples, kind, **more)
        out, events = tmp_path_factory.mktemp(kind) / "run", Events()
        train(chosen, events, out=out)
        made[kind] = chosen, out, events
    return made


def everything(path):
    """What a finished run comes down to, the weights of its best epoch included."""
    best = [(folder.name, (folder / "model.safetensors").read_bytes()) for folder in path.glob("best/step-*")]
    return *result(path), best


def stop_in(step, number=signal.SIGTERM):
    """A reporter that sends a signal when the first batch of a validation is done."""

    sent = []  # a second one would end the tests

    def interrupt(event):
        if event["event"] == "validating" and event["step"] == step and not sent:
            sent.append(number)
            os.kill(os.getpid(), number)

    return Events(interrupt)


@pytest.mark.parametrize("which", ["first", "last"])
@pytest.mark.parametrize("kind", EVERY)
def test_a_validation_that_was_stopped_is_made_when_the_run_goes_on(kind, which, runs, tmp_path):
    chosen, quiet, told = runs[kind]
    step = EVERY[kind] if which == "first" else LAST[kind]
    out, events = tmp_path / "run", stop_in(step)
    with pytest.raises(Stopped, match=f"stopped and saved at step {step}; go on with") as stopped:
        train(chosen, events, out=out)
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    last = events.of("validating")[-1]
    assert last["step"] == step
    assert last["done"] < last["total"]
    assert [event["step"] for event in events.of("validation")] == list(range(EVERY[kind], step, EVERY[kind]))
    assert (out / "checkpoints" / f"step-{step:06d}").exists()
    events = Events()
    end = resume(out, events)
    assert [event["step"] for event in events.of("validation")] == list(range(step, LAST[kind] + 1, EVERY[kind]))
    assert everything(out) == everything(quiet)
    assert {name: end.get(name) for name in ("validation", "best", "report")} == {
        name: told[-1].get(name) for name in ("validation", "best", "report")
    }
    assert not events.of("warning")
    again = Events()
    resume(out, again)
    assert not again.of("validation")
    assert f"all {LAST[kind]} steps" in again.of("warning")[0]["message"]


@pytest.mark.parametrize("kind", ["text", "classify"])
def test_it_is_in_the_log_once_whatever_happens_next(kind, runs, tmp_path, monkeypatch):
    """A kill between the line of a validation and the checkpoint that knows of it."""

    def killed(*args, **more):
        raise Killed

    chosen, quiet, _ = runs[kind]
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        train(chosen, stop_in(LAST[kind]), out=out)
    with monkeypatch.context() as patched:
        patched.setattr(RunState, "note_validation", killed)
        with pytest.raises(Killed):
            resume(out, Events())
    with pytest.raises(Stopped):
        resume(out, stop_in(LAST[kind]))
    resume(out, Events())
    assert everything(out) == everything(quiet)


def test_the_last_validation_may_come_out_of_turn(runs, tmp_path):
    chosen = runs["text"][0].replace(steps=10)
    train(chosen, Events(), out=tmp_path / "quiet")
    with pytest.raises(Stopped):
        train(chosen, stop_in(10), out=tmp_path / "run")
    resume(tmp_path / "run", Events())
    assert everything(tmp_path / "run") == everything(tmp_path / "quiet")


def test_the_whole_of_a_validation_is_told_batch_by_batch(runs, examples):
    found = [event for event in runs["classify"][2].of("validating") if event["step"] == 12]
    assert [(event["done"], event["total"]) for event in found] == [(8, 24), (16, 24), (24, 24)]
    told, out = [], runs["classify"][1]
    evaluate(open_run(out), tinyformer.load(out), str(examples), progress=lambda *now: told.append(now))
    assert told == [(8 * batch, 120) for batch in range(1, 16)]


def test_a_signal_waits_for_what_is_being_written_and_no_longer(runs, tmp_path, monkeypatch):
    """Of 24 sources in batches of 4, each of which takes a while, those of the two threads are written to the end."""
    outputs, written = Text2Text.outputs, []

    def slow(self, model, batch):
        written.append(len(batch))
        time.sleep(0.05)
        return outputs(self, model, batch)

    monkeypatch.setattr(Text2Text, "outputs", slow)
    with pytest.raises(Stopped):
        train(runs["text2text"][0].replace(batch_size=4, epochs=1), stop_in(24), out=tmp_path / "run")
    assert 4 <= sum(written) <= 4 * 4


def test_a_run_of_an_early_version_that_does_not_say_what_its_validation_was_of(runs, tmp_path, monkeypatch):
    state = RunState._state

    def without_step(self):
        found = state(self)
        found["validation"].pop("step", None)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(RunState, "_state", without_step)
        train(runs["text"][0].replace(steps=8), Events(), out=tmp_path / "run")
    before = result(tmp_path / "run")
    events = Events()
    resume(tmp_path / "run", events)
    assert not events.of("validating")
    assert result(tmp_path / "run") == before


def test_a_disk_that_is_full_when_a_validation_is_noted_costs_nothing(runs, tmp_path, monkeypatch):
    chosen, quiet, _ = runs["classify"]
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        train(chosen, stop_in(LAST["classify"]), out=out)
    before = (out / "checkpoints" / "step-000048" / "state.json").read_bytes()

    def full(*args, **more):
        raise WriteError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "note", full)
        events = Events()
        resume(out, events)
    assert events.of("warning")[0]["message"] == (
        "the disk is full; when the run goes on, the validation is made again"
    )
    assert (out / "checkpoints" / "step-000048" / "state.json").read_bytes() == before
    resume(out, Events())
    assert everything(out) == everything(quiet)
    assert json.loads((out / "checkpoints" / "step-000048" / "state.json").read_text())["validation"]["step"] == 48


def test_nothing_is_changed_in_a_run_that_has_done_all_its_steps(runs, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(runs["classify"][1], out)
    before = (out / "config.toml").read_bytes()
    resume(out, Events(), {"learning_rate": 1.0})
    assert (out / "config.toml").read_bytes() == before


def test_a_signal_in_the_last_answers_leaves_a_run_that_is_whole(runs, tmp_path):
    """Those of the confusion matrix, when everything is saved."""
    chosen, quiet, told = runs["classify"]

    def interrupt(event):
        last = event["event"] == "validating" and events[-2]["event"] == "saved" and event["step"] == LAST["classify"]
        if last:
            os.kill(os.getpid(), signal.SIGTERM)

    events = Events(interrupt)
    with pytest.raises(Stopped, match="stopped and saved at step 48"):
        train(chosen, events, out=tmp_path / "run")
    assert everything(tmp_path / "run") == everything(quiet)
    assert resume(tmp_path / "run", Events())["report"] == told[-1]["report"]
