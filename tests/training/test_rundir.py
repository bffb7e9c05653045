"""A run's directory: free names, nothing overwritten, one writer, and errors that say what a run is."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tinyformer.errors import TinyformerError, UsageError
from tinyformer.training.config import RunConfig
from tinyformer.training.rundir import new_run, open_run


def begin(run):
    run.write_config(RunConfig())


def take(out, act=begin):
    with new_run(out, "data.txt", "decoder") as run:
        act(run)
    return run


def held_by(run, whom):
    with pytest.raises(TinyformerError, match="another process is training into"), run.lock():
        pytest.fail(f"it was locked twice, in spite of {whom}")


def test_default_names_are_the_next_free_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for expected in ("data-decoder", "data-decoder-2", "data-decoder-3"):
        with new_run(None, "some/where/data.txt", "decoder") as run:
            begin(run)
        assert run.path == Path("runs") / expected
        assert open_run(run.path).config() == RunConfig()
    with new_run(None, ".hidden", "decoder") as run:
        assert run.path.name == "hidden-decoder"
    with new_run(None, "x" * 250 + ".txt", "decoder") as run:
        assert len(run.path.name) < 100


@pytest.mark.parametrize("exists", [True, False])
def test_a_named_directory_may_be_new_or_empty(tmp_path, exists):
    out = tmp_path / "deep" / "mine"
    if exists:
        out.mkdir(parents=True)
    assert take(out).path == out
    with pytest.raises(UsageError, match=r"exists and is not empty; choose a new --out$"):  # as for an imported run
        take(out)
    assert open_run(out).config() == RunConfig()


def test_going_on_is_offered_only_where_there_is_a_run(tmp_path):
    out = tmp_path / "it's mine"
    take(out).write_config(RunConfig(files=("text.txt",)))
    with pytest.raises(UsageError) as raised:
        take(out)
    assert str(raised.value).endswith(f"--resume {shlex.quote(str(out))}")
    (out / "config.toml").unlink()
    (out / "notes.txt").write_text("precious")
    with pytest.raises(UsageError, match=r"choose a new --out$"):
        take(out)


def test_what_a_kill_left_of_a_beginning_is_told(tmp_path):
    code = (
        "import sys; from tinyformer.training.rundir import new_run\n"
        "with new_run(sys.argv[1], 'x', 'decoder') as run:\n"
        "    run.checkpoints.mkdir(); (run.path / '.tmp-tokenizer.json').write_text('{')\n"
        "    print('here', flush=True); sys.stdin.read()"
    )
    out = tmp_path / "mine"
    other = subprocess.Popen([sys.executable, "-c", code, out], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"here\n"
    with pytest.raises(UsageError, match=r"choose a new --out$"):  # it is still at work
        take(out)
    other.kill()
    other.communicate()
    way = (
        r"choose a new --out, or remove it: it is the beginning of a run that was killed before it had a config\.toml$"
    )
    with pytest.raises(UsageError, match=way):
        take(out)
    (out / "notes.txt").write_text("precious")
    with pytest.raises(UsageError, match=r"choose a new --out$"):
        take(out)


def test_a_file_is_never_replaced_by_a_run(tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UsageError, match="exists"):
        take(tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_place_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TinyformerError, match=r"cannot create .*file/run: .*; choose another --out"):
        take(tmp_path / "file" / "run")


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_before_the_beginning_leaves_nothing(tmp_path, exists, error):
    out = tmp_path / "mine"
    if exists:
        out.mkdir()

    def fail(run):
        run.tokenizer_file.write_text("{}")
        run.checkpoints.mkdir()
        raise error

    with pytest.raises(error):
        take(out, fail)
    assert out.exists() == exists
    assert not exists or not list(out.iterdir())


def test_a_failure_after_the_beginning_removes_nothing(tmp_path):
    def fail(run):
        begin(run)
        raise ValueError("late")

    with pytest.raises(ValueError, match="late"):
        take(tmp_path / "mine", fail)
    assert open_run(tmp_path / "mine").config() == RunConfig()


def test_two_processes_do_not_train_into_one_run(tmp_path):
    code = (
        "import sys; from tinyformer.training.rundir import open_run\n"
        "with open_run(sys.argv[1]).lock(): print('locked', flush=True); sys.stdin.read()"
    )
    run = take(tmp_path / "mine", lambda run: (begin(run), held_by(run, "this process")))
    other = subprocess.Popen([sys.executable, "-c", code, run.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"locked\n"
    held_by(run, "another")
    other.kill()
    other.communicate()
    with run.lock():
        pass


def test_what_is_no_run_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"no run at .*none: it does not exist; a run is what"):
        open_run(tmp_path / "none")
    with pytest.raises(UsageError, match=r"is not a run directory: no config\.toml"):
        open_run(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file, not a run directory"):
        open_run(tmp_path / "file")


def test_a_run_is_found_from_its_checkpoint(tmp_path):
    with new_run(tmp_path / "mine", "a", "decoder") as run:
        begin(run)
    path = run.checkpoints / "step-000001"
    path.mkdir(parents=True)
    (path / "state.json").write_text("")
    assert open_run(path).path == run.path
    os.rename(run.config_file, run.path / "other")
    with pytest.raises(UsageError, match=r"no config\.toml"):
        open_run(path)
