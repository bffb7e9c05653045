"""Fine-tuning, on tiny models: it learns, goes on after anything as if nothing had happened, and keeps its best."""

import errno
import json
import os
import re
import shutil
import signal

import numpy as np
import pytest
import tiny_tasks
from test_kill import check_kills
from tiny_runs import Events, result
from tiny_tasks import settings, words, write

import tinyformer
from tinyformer import files, models
from tinyformer.errors import TinyformerError, UsageError
from tinyformer.tasks import TASKS, TaskModel
from tinyformer.training import checkpoint, finetuning, task_examples, tuning
from tinyformer.training.rundir import open_run
from tinyformer.training.runlog import read_log
from tinyformer.training.signals import Stopped
from tinyformer.training.trainer import resume, train


@pytest.fixture(scope="session")
def tuned(origins, examples):
    return settings(origins["encoder"], examples)


@pytest.fixture(scope="session")
def finished(tuned, tmp_path_factory):
    """A run without an interruption, and what it told."""
    out, events = tmp_path_factory.mktemp("finetuned") / "run", Events()
    train(tuned, events, out=out)
    return out, events


@pytest.fixture
def out(tmp_path):
    return tmp_path / "run"


def everything(path):
    """What a finished run comes down to: the last checkpoint, the best one, the log without the speeds."""
    best = next((path / "best").glob("step-*"))
    return *result(path), best.name, (best / "model.safetensors").read_bytes()


@pytest.mark.parametrize("mode", ["encoder", "decoder"])
def test_a_task_is_learned(origins, examples, out, mode):
    config = settings(origins[mode], examples, epochs=10)
    end = train(config, Events(), out=out)
    assert end["best"]["accuracy"] > 0.9
    assert end["task"] == "classify"
    labels, confusion = end["report"]["labels"], np.array(end["report"]["confusion"])
    assert labels == ["x", "y"]
    assert confusion.sum() == 24
    assert np.trace(confusion) / 24 == pytest.approx(end["best"]["accuracy"])


def test_what_a_run_leaves_and_tells(finished, origins):
    out, events = finished
    names = {path.name for path in out.iterdir()} - {".lock"}
    assert names == {
        *("config.toml", "tokenizer.json", "train.jsonl", "validation.jsonl", "log.jsonl", "checkpoints", "best"),
    }
    settled = open_run(out).config()
    assert (settled.task, settled.labels, settled.epochs, settled.mode) == ("classify", ("x", "y"), 4, "encoder")
    assert (settled.steps, settled.warmup, settled.schedule, settled.minimum_ratio) == (48, 4, "linear", 0.0)
    assert settled.init_from == str(origins["encoder"])
    start = events.of("start")[0]
    assert (start["examples"], start["validation_examples"], start["epoch_steps"]) == (96, 24, 12)
    assert sum(start["balance"].values()) == 96
    assert start["balance"].keys() == {"x", "y"}
    model = tinyformer.load(out)
    assert start["parameters"] == sum(p.array.size for p in model.parameters().values())
    found = events.of("validation")
    assert [event["step"] for event in found] == [12, 24, 36, 48]
    assert [event["epoch"] for event in found] == [1, 2, 3, 4]
    assert [line["step"] for line in read_log(out / "log.jsonl") if line["split"] == "validation"] == [12, 24, 36, 48]
    assert events[-1]["next"].startswith(f"tinyformer predict {out} ")
    assert not events.of("warning")


def test_each_epoch_shows_every_example_once(finished):
    run = open_run(finished[0])
    _, corpus = finetuning.reopen(run, run.config())
    orders = []
    for epoch in range(2):
        batches = [corpus.batch(12 * epoch + step, 8) for step in range(1, 13)]
        masks = [np.ones_like(batch.inputs, bool) if batch.mask is None else batch.mask for batch in batches]
        orders.append([row[m].tobytes() for batch, mask in zip(batches, masks) for row, m in zip(batch.inputs, mask)])
    assert set(orders[0]) == {row.ids.tobytes() for row in corpus.rows}
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]
    odd = [len(corpus.batch(step, 10)) for step in range(1, 11)]
    assert odd == [10] * 9 + [6]


@pytest.mark.parametrize("step", [5, 12, 30])
def test_a_resumed_run_ends_with_the_same_bits(tuned, finished, out, step):
    def interrupt(event):
        if event["event"] == "train" and event["step"] == step:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped, match=f"stopped and saved at step {step}; go on with: tinyformer train --resume"):
        train(tuned, Events(interrupt), out=out)
    events = Events()
    resume(out, events)
    assert everything(out) == everything(finished[0])
    assert events[-1]["report"] == finished[1][-1]["report"]


def test_a_process_that_is_killed_again_and_again_ends_with_the_same_bits(tuned, finished, out, tmp_path):
    (tmp_path / "config.toml").write_text(tuned.to_toml())
    check_kills(tmp_path / "config.toml", result(finished[0]), 2, out)
    assert everything(out) == everything(finished[0])


class Killed(BaseException):
    """Ends a process at once, as far as files can tell."""


@pytest.mark.parametrize("step", [3, 12, 24, 47])
def test_what_a_kill_between_two_files_leaves_is_gone_on_with(tuned, finished, out, monkeypatch, step):
    """Right after the best weights were written, and before the checkpoint of the same step."""
    from tinyformer.training.saving import RunState

    kept = RunState.keep_best

    def keep_best(self, measure):
        kept(self, measure)
        if self.step >= step:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(RunState, "keep_best", keep_best)
        with pytest.raises(Killed):
            train(tuned, Events(), out=out)
    resume(out, Events())
    assert everything(out) == everything(finished[0])


def test_the_best_epoch_is_kept_and_loaded(finished, tmp_path):
    out, events = finished
    best = max(events.of("validation"), key=lambda event: (event["accuracy"], -event["loss"]))
    (kept,) = (out / "best").iterdir()
    assert kept.name == f"step-{best['step']:06d}"
    state = checkpoint.load(kept, optimizer=False).state
    assert state["validation"]["accuracy"] == best["accuracy"] == events[-1]["best"]["accuracy"]
    model = tinyformer.load(out)
    assert isinstance(model, TaskModel)
    for name, array in checkpoint.load(kept, optimizer=False).model.items():
        np.testing.assert_array_equal(model.parameters()[name].array, array)
    kept_apart = map(json.loads, (out / "validation.jsonl").read_text().splitlines())
    file = write(tmp_path / "kept.tsv", [(line["texts"][0], line["label"]) for line in kept_apart])
    found = finetuning.evaluate(open_run(out), model, str(file))
    assert found["accuracy"] == best["accuracy"]
    last = tinyformer.load(out / "checkpoints" / "step-000048")
    assert last.parameters().keys() == model.parameters().keys()
    assert tinyformer.load(kept).parameters().keys() == model.parameters().keys()


def test_best_weights_that_are_damaged_are_told_of_and_the_newest_taken(finished, tmp_path):
    copy = shutil.copytree(finished[0], tmp_path / "copy")
    damaged = next((copy / "best").glob("*/model.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    with pytest.warns(UserWarning, match="the best weights are lost: .*damaged.*; these are the newest"):
        model = tinyformer.load(copy)
    newest = checkpoint.newest(copy / "checkpoints").model
    np.testing.assert_array_equal(model.parameters()["head.output.weight"].array, newest["head.output.weight"])
    shutil.rmtree(next((copy / "best").iterdir()))  # as of a run that was killed before it had kept any
    model = tinyformer.load(copy)  # without a warning
    np.testing.assert_array_equal(model.parameters()["head.output.weight"].array, newest["head.output.weight"])


@pytest.mark.parametrize("mode", ["encoder", "decoder"])
def test_freezing_leaves_the_bits_of_the_body_alone(origins, examples, out, mode):
    train(settings(origins[mode], examples, freeze=True, epochs=2), Events(), out=out)
    before = checkpoint.load_weights(origins[mode])[0]
    after = checkpoint.newest(out / "checkpoints")
    for name, array in before.items():
        assert after.model[f"body.{name}"].tobytes() == array.tobytes()
    assert {name.split(".")[1] for name in after.optimizer} == {"head"}
    first = checkpoint.load_weights(out / "best" / next((out / "best").iterdir()).name)[0]
    assert any((first[name] != 0).any() for name in first if name.startswith("head."))


def test_a_body_that_is_not_frozen_learns_too(finished, origins):
    before, after = checkpoint.load_weights(origins["encoder"])[0], checkpoint.newest(finished[0] / "checkpoints").model
    assert (after["body.tokens.weight"] != before["tokens.weight"]).any()
    assert after["body.head.dense.weight"].tobytes() == before["head.dense.weight"].tobytes()  # predicts words


@pytest.mark.parametrize("given", ["fraction", "file"])
def test_examples_to_validate_on_are_drawn_evenly_or_come_from_a_file(origins, out, tmp_path, given):
    ordered = write(tmp_path / "train.tsv", sorted(words(60), key=lambda pair: pair[1]))
    more = {"validation": str(write(tmp_path / "own.tsv", words(10, seed=5)))} if given == "file" else {}
    train(settings(origins["encoder"], ordered, epochs=1, **more), Events(), out=out)
    kept = [json.loads(line) for line in (out / "validation.jsonl").read_text().splitlines()]
    rest = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    if given == "file":
        assert [(line["texts"][0], line["label"]) for line in kept] == words(10, seed=5)
        assert len(rest) == 60
        return
    assert {line["place"] for line in kept} | {line["place"] for line in rest} == {
        f"{ordered}, line {number}" for number in range(1, 61)
    }
    assert len(kept) == 12
    share = sum(line["label"] == "x" for line in [*kept, *rest]) / 60
    assert abs(sum(line["label"] == "x" for line in kept) - 12 * share) <= 1


@pytest.mark.parametrize("count", [1, 3, 7])
def test_the_same_examples_are_held_out_each_time_and_others_by_another_seed(count):
    labels = ["x"] * 30 + ["y"] * 10
    kept = task_examples.held_out(labels, count, 0)
    assert kept == task_examples.held_out(labels, count, 0)
    assert len(kept) == count
    assert len({frozenset(task_examples.held_out(labels, count, seed)) for seed in range(10)}) > 5


def test_a_run_needs_no_file_to_go_on(origins, tmp_path, out):
    file = write(tmp_path / "gone.tsv", words(40))
    train(settings(origins["encoder"], file, epochs=1), Events(), out=out)
    file.unlink()
    end = resume(out, Events(), {"steps": 8})
    assert end["step"] == 8


@pytest.mark.parametrize("name", ["train.jsonl", "validation.jsonl"])
def test_examples_that_are_changed_or_lost_are_told_of(finished, tmp_path, name):
    copy = shutil.copytree(finished[0], tmp_path / "copy")
    lines = (copy / name).read_text().splitlines(keepends=True)
    (copy / name).write_text("".join(lines[:-1]))
    with pytest.raises(TinyformerError, match=f"{name} has changed since the run began; put it back"):
        resume(copy, Events())
    (copy / name).unlink()
    with pytest.raises(TinyformerError, match=f"cannot read .*{name}: No such file"):
        resume(copy, Events())


def test_labels_survive_being_stored(tmp_path):
    from tinyformer.tasks import Example

    some = [
        Example(("a\tb\n", "\ud800é"), "x", "f, line 1"),
        Example(("one", "two"), ("O", "B-PER"), key="7"),
        Example(("who", "context"), (("it", 3), ("one", 5))),
        Example(("x",), 1.25),
        Example(("x",), None),
    ]
    checksum = task_examples.write(tmp_path / "examples.jsonl", some)
    assert task_examples.read_back(tmp_path / "examples.jsonl", checksum) == some


def test_a_disk_that_is_full_for_the_best_weights_costs_only_these(tuned, out, monkeypatch):
    write_directory = files.write_directory

    def full(path, contents, **more):
        if path.parent.name == "best" and path.name < "step-000030":
            raise files.WriteError(f"cannot write {path}: {os.strerror(errno.ENOSPC)}")
        write_directory(path, contents, **more)

    monkeypatch.setattr(files, "write_directory", full)
    events = Events()
    end = train(tuned, events, out=out)
    assert re.search("No space left on device; training goes on, and .*best keeps", events.of("warning")[0]["message"])
    assert end["best"]["step"] >= 36


def test_a_run_that_was_fine_tuned_is_begun_from_without_its_head(finished, examples, out, tmp_path):
    from tinyformer.training.config import RunConfig

    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(text for text, _ in words(80)))
    best = checkpoint.load_weights(finished[0])[0]
    quick = {"tokenizer": "bpe", "steps": 1, "batch_size": 2, "sample_every": 0, "learning_rate": 1e-9}
    train(RunConfig(files=(str(text),), init_from=str(finished[0]), **quick), Events(), out=out)
    found = checkpoint.load_weights(out)[0]
    np.testing.assert_allclose(found["tokens.weight"], best["body.tokens.weight"], atol=1e-6)
    again = settings(finished[0], examples, epochs=1, learning_rate=1e-9)
    train(again, Events(), out=tmp_path / "again")
    found = checkpoint.load_weights(tmp_path / "again")[0]
    np.testing.assert_allclose(found["body.tokens.weight"], best["body.tokens.weight"], atol=1e-6)


def test_a_run_is_begun_again_from_the_settings_of_another(finished, tmp_path):
    config = open_run(finished[0]).config()
    train(config, Events(), out=tmp_path / "again")
    assert everything(tmp_path / "again") == everything(finished[0])


@pytest.mark.parametrize(
    ("mode", "width", "rate"),
    [
        ("encoder", 64, 1e-3),
        ("encoder", 128, 1e-3),
        ("decoder", 768, 7e-5),
        ("encoder", 1024, 4e-5),
        ("encoder-decoder", 512, 3e-4),
    ],
)
def test_the_learning_rate_is_near_the_published_ones(mode, width, rate):
    shape = models.resolve(mode=mode, vocabulary=9, width=width)
    assert tuning.default_rate(shape) == pytest.approx(rate)
    assert tuning.default_rate(shape, frozen=True) == pytest.approx(3 * rate, rel=0.2)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_a_mode_that_cannot_do_a_task_is_told_which_can(origins, examples, out, task):
    for mode in tiny_tasks.MODES:
        if mode not in TASKS[task].modes:
            with pytest.raises(UsageError, match=f"a model of mode {mode} cannot do the task {task}; it can do "):
                train(settings(origins[mode], examples, task), Events(), out=out)
            assert not out.exists()


def test_other_tasks_are_trained_as_well(origins, tmp_path, out):
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("".join(f"{a}\t{b}\t{int(x == y)}\n" for (a, x), (b, y) in zip(words(40), words(40, seed=1))))
    numbers = tmp_path / "numbers.tsv"
    numbers.write_text("".join(f"{a}\t{a.count('a')}\n" for a, _ in words(40)))
    tags = tmp_path / "tags.conll"
    tags.write_text("".join("".join(f"{c} {'B-X' if c == 'x' else 'O'}\n" for c in a) + "\n" for a, _ in words(40)))
    for task, file, measures in (
        ("pair", pairs, {"accuracy", "f1"}),
        ("regress", numbers, {"pearson", "spearman"}),
        ("tag", tags, {"f1", "accuracy"}),
    ):
        place = tmp_path / task
        end = train(settings(origins["encoder"], file, task, epochs=2), Events(), out=place)
        assert measures <= end["validation"].keys()
        assert end["best"]["epoch"] in (1, 2)
        assert isinstance(tinyformer.load(place), TaskModel)
        assert resume(place, Events(), {"steps": 14})["step"] == 14
