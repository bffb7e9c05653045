"""Checkpoints: the last two are kept, a damaged one is passed over, and no failing call of a save loses one."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tinyformer.errors import TinyformerError
from tinyformer.training import checkpoint
from tinyformer.training.checkpoint import check_names, load, load_weights, newest, save
from tinyformer.training.tensorfile import DamagedFile

STATE = {
    "seed": 0,
    "tokens_seen": 10,
    "failures": 0,
    "validation": {"loss": 1.5},
    "config_digest": "x",
    "fingerprint": {"numpy": "2"},
}


def weights(step):
    return {"w": np.full((2, 3), step, "f4"), "b": np.full(3, -step, "f4")}


def means(step):
    return {"first.w": np.full((2, 3), step / 2, "f4"), "second.w": np.full((2, 3), step / 4, "f4")}


def save_step(directory, step):
    return save(directory, step, weights(step), means(step), STATE)


def holds(found, step):
    assert found.step == step
    for given, expected in ((found.model, weights(step)), (found.optimizer, means(step))):
        assert given.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(given[name], array)


def test_what_is_saved_is_loaded_and_the_last_two_are_kept(tmp_path):
    for step in (0, 7, 1_000_000):
        assert save_step(tmp_path, step) == tmp_path / f"step-{step:06d}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000007", "step-1000000"]
    holds(newest(tmp_path), 1_000_000)
    holds(load(tmp_path / "step-000007"), 7)
    assert newest(tmp_path).state["validation"] == {"loss": 1.5}
    assert newest(tmp_path, optimizer=False).optimizer == {}


def test_saving_and_loading_take_no_copy_of_the_arrays(tmp_path):
    model, optimizer = {"w": np.zeros(1 << 20, "f4")}, {"first.w": np.zeros(1 << 20, "f4")}
    tracemalloc.start()
    try:
        found = load(save(tmp_path, 1, model, optimizer, STATE))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.model["w"].nbytes == 1 << 22
    assert peak < 1 << 20


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("how", ["flip", "cut", "empty", "gone", "directory"])
def test_a_damaged_one_is_passed_over_with_a_word(tmp_path, name, how):
    for step in (1, 2):
        save_step(tmp_path, step)
    path = tmp_path / "step-000002" / name
    content = bytearray(path.read_bytes())
    path.unlink()
    if how == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "cut":
        path.write_bytes(content[:-1])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "directory":
        path.mkdir()
    told = []
    holds(newest(tmp_path, on_damage=told.append), 1)
    assert len(told) == 1
    assert str(path) in told[0]
    assert told[0].endswith("going on from step-000001")


def test_a_run_that_went_on_from_the_one_before_replaces_the_damaged_one(tmp_path):
    for step in (1, 2, 3):
        save_step(tmp_path, step)
    (tmp_path / "step-000003" / "state.json").write_bytes(b"{")
    save_step(tmp_path, 3)
    holds(newest(tmp_path), 3)
    (tmp_path / "step-000003" / "state.json").write_bytes(b"{")
    save_step(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000002"]


def test_all_damaged_is_one_error(tmp_path):
    for step in (1, 2):
        save_step(tmp_path, step)
    for step in (1, 2):
        (tmp_path / f"step-{step:06d}" / "model.safetensors").write_bytes(b"")
    with pytest.raises(TinyformerError, match=r"no checkpoint is in order: .*step-000002.* \(and 1 more"):
        newest(tmp_path)
    with pytest.raises(TinyformerError, match="no checkpoint in"):
        newest(tmp_path / "none")


def test_altered_bytes_are_always_noticed(tmp_path):
    path = save_step(tmp_path, 5)
    rng = np.random.default_rng(0)
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        good = (path / name).read_bytes()
        for _ in range(150):
            content = bytearray(good)
            place = rng.integers(0, len(good))
            content[place] ^= rng.integers(1, 256)
            (path / name).unlink()
            (path / name).write_bytes(content)
            message = ""
            try:
                holds(load(path), 5)  # white space in the state may change
            except DamagedFile as error:
                message = str(error)
            assert str(path / name) in message or (not message and name == "state.json")
        (path / name).write_bytes(good)
    holds(load(path), 5)


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 200_000,
        b"{" * 200_000,
        b'{"step": ' + b"9" * 200_000 + b"}",
        b" " * 300_000,
        b"[1]",
        b'{"sha256": 1, "format": 1}',
        b'{"sha256": {}, "format": 2}',
        b'{"sha256": {}, "format": 1, "seal": NaN}',
        b"\xff",
    ],
)
def test_a_hostile_state_is_one_error(tmp_path, text):
    path = save_step(tmp_path, 5)
    (path / "state.json").write_bytes(text)
    with pytest.raises(DamagedFile, match=r"state\.json is damaged") as raised:
        load(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["step", "seed", "tokens_seen", "failures", "validation", "fingerprint", "sha256"])
def test_a_sealed_state_of_the_wrong_kinds_is_one_error(tmp_path, name):
    path = save_step(tmp_path, 5)
    state = json.loads((path / "state.json").read_bytes())
    del state["seal"]
    state[name] = [1]
    state["seal"] = checkpoint._seal(state)
    (path / "state.json").write_text(json.dumps(state))
    with pytest.raises(DamagedFile, match=f"incomplete: {name}"):
        load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"validation": {"loss": "x"}}, "its validation should hold numbers"),
        ({"step": 6}, "it is of step 6"),
        ({"step": -1}, "impossible"),
        ({"failures": 6}, "impossible"),
        ({"tokens_seen": -1}, "impossible"),
    ],
)
def test_a_sealed_state_that_cannot_be_is_one_error(tmp_path, change, message):
    path = save_step(tmp_path, 5)
    state = json.loads((path / "state.json").read_bytes()) | change
    del state["seal"]
    state["seal"] = checkpoint._seal(state)
    (path / "state.json").write_text(json.dumps(state))
    with pytest.raises(DamagedFile, match=rf"state\.json is damaged: .*{message}"):
        load(path)


def test_a_directory_that_cannot_be_read_is_not_called_empty(tmp_path):
    (tmp_path / "checkpoints").touch()
    with pytest.raises(TinyformerError, match=r"^cannot read .*checkpoints: Not a directory$"):
        newest(tmp_path / "checkpoints")


def test_weights_alone_come_from_a_run_or_from_one_checkpoint(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for step in (1, 2):
        save_step(tmp_path / "checkpoints", step)
    tensors, state = load_weights(tmp_path)
    np.testing.assert_array_equal(tensors["w"], weights(2)["w"])
    assert state["step"] == 2
    (tmp_path / "checkpoints" / "step-000002" / "optimizer.safetensors").unlink()  # not needed for this
    assert load_weights(tmp_path)[1]["step"] == 2
    assert load_weights(tmp_path / "checkpoints" / "step-000001")[1]["step"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.pop("b"), "lacks 'b'$"),
        (lambda found: found.update(ww=found.pop("w")), r"lacks 'w' \(it has 'ww'\)"),
        (lambda found: found.update(c=found["b"]), "which has no 'c'"),
        (lambda found: found.update(w=found["w"].T), r"'w' is float32 \(3, 2\) there, and should be float32 \(2, 3\)"),
        (lambda found: found.update(w=found["w"].astype("f8")), r"'w' is float64 \(2, 3\) there"),
    ],
)
def test_weights_of_another_model_are_told_by_name(tmp_path, change, message):
    found = weights(1)
    check_names(weights(0), found, tmp_path)
    change(found)
    with pytest.raises(DamagedFile, match=message):
        check_names(weights(0), found, tmp_path)


# What follows makes single system calls of a real save fail, from outside the process.

SAVE = textwrap.dedent("""
    import sys
    from pathlib import Path
    import numpy as np
    from tinyformer.errors import TinyformerError
    from tinyformer.training.checkpoint import save
    one, state = np.ones(3, "f4"), %r
    try:
        save(Path(sys.argv[1]), 3, {"w": 3 * one}, {"first.w": one, "second.w": one}, state)
    except TinyformerError as error:
        sys.exit(str(error))
""") % (STATE,)
CALLS = "write,fsync,rename,mkdir"


def strace(directory, *options):
    command = ["strace", "-qq", "-o", str(directory / "trace"), *options]
    command += [sys.executable, "-B", "-c", SAVE, str(directory / "checkpoints")]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """A directory with checkpoints of steps 1 and 2, and how often a save of step 3 makes each system call."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed; test_files.py makes calls fail inside the process instead")
    directory = tmp_path_factory.mktemp("traced")
    (directory / "checkpoints").mkdir()
    for step in (1, 2):
        one = np.ones(3, "f4")
        save(directory / "checkpoints", step, {"w": step * one}, {"first.w": one, "second.w": one}, STATE)
    trial = shutil.copytree(directory, directory.with_name("trial"))
    done = strace(trial, "-e", f"trace={CALLS}")
    if done.returncode and "strace:" in done.stderr:
        pytest.skip(f"strace cannot trace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    names = re.findall(r"^(\w+)\(", (trial / "trace").read_text(), re.MULTILINE)
    return directory, {name: names.count(name) for name in CALLS.split(",")}


@pytest.mark.parametrize("disaster", ["signal=KILL", "error=ENOSPC", "error=EIO"])
def test_a_save_survives_every_failing_call(traced, disaster):
    directory, calls = traced
    assert calls["write"] >= 3  # the weights, the running means, the state
    assert calls["fsync"] >= 5  # three files, their directory, and the one that it lies in
    assert calls["rename"] >= 2  # into place, and the oldest out of it

    def check(case):
        name, n = case
        mine = shutil.copytree(directory, directory.with_name(f"{disaster}-{name}-{n}"))
        done = strace(mine, "-e", f"trace={CALLS}", "-e", f"inject={name}:{disaster}:when={n}")
        told = []
        found = newest(mine / "checkpoints", on_damage=told.append)
        assert found.step in (2, 3)
        assert not told
        np.testing.assert_array_equal(found.model["w"], np.full(3, found.step, "f4"))
        if disaster == "signal=KILL":
            assert done.returncode in (-9, 137)
        elif done.returncode == 0:  # only the removal of an old one failed
            assert (name, found.step) == ("rename", 3)
        else:
            code = getattr(errno, disaster.removeprefix("error="))
            assert done.stderr.startswith("cannot write ")
            assert os.strerror(code) in done.stderr
            assert len(done.stderr.splitlines()) == 1
        save(mine / "checkpoints", 4, {"w": np.ones(3, "f4")}, {}, STATE)  # afterwards everything is as always
        left = sorted(path.name for path in (mine / "checkpoints").iterdir())
        assert left == [f"step-{found.step:06d}", "step-000004"]
        return found.step

    cases = [(name, n) for name, count in calls.items() for n in range(1, count + 1)]
    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(check, cases)) == {2, 3}
