"""kill -9 in the middle of training, again and again: the finished run equals the one that was left alone."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from hypothesis import settings
from tiny_runs import MODEL, Events, result

from tinyformer.errors import UsageError
from tinyformer.training import checkpoint
from tinyformer.training.config import RunConfig
from tinyformer.training.rundir import open_run
from tinyformer.training.trainer import train

KILLS = 20 if settings.default.max_examples < 1000 else 1000  # --hypothesis-profile=thorough

SETTINGS = {"batch_size": 4, "grad_accumulation": 2, "threads": 2, "sample_every": 0, "log_every": 1}
SETTINGS |= {"eval_every": 15, "save_every": 3}

# Trains or goes on; says so once training begins and at each step.
TRAINING = textwrap.dedent("""
    import sys
    from tinyformer.training.config import read_config
    from tinyformer.training.trainer import resume, train
    from tinyformer.errors import TinyformerError

    def reporter(event):
        if event["event"] in ("prepare", "start", "train", "warning"):
            print(event["event"], event.get("message", ""), flush=True)

    try:
        if sys.argv[1] == "resume":
            resume(sys.argv[2], reporter)
        else:
            train(read_config(sys.argv[3]), reporter, out=sys.argv[2])
    except TinyformerError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
""")


def begin(*arguments):
    command = [sys.executable, "-W", "error", "-c", TRAINING, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process, word):
    line = process.stdout.readline()
    while line and not line.startswith(word):
        line = process.stdout.readline()
    return bool(line)


@pytest.fixture(scope="module")
def long(text, tmp_path_factory):
    """Settings of a run that outlasts many kills, its config file, and its result without them."""
    return begun(text, tmp_path_factory, KILLS // 2, {})


@pytest.fixture(scope="module", params=["next-sentence", "span-corruption"])
def other(request, configs, tmp_path_factory):
    """As `long`, in the other modes."""
    config = configs[request.param]
    same = {name: getattr(config, name) for name in ("mode", "objective", "masking", "model")}
    return begun(config.files[0], tmp_path_factory, KILLS // 4, same)


def begun(text, tmp_path_factory, kills, settings):
    config = RunConfig(**{"model": MODEL} | settings, files=(text,), tokenizer="bytes", steps=kills * 5, **SETTINGS)
    folder = tmp_path_factory.mktemp("long")
    (folder / "config.toml").write_text(config.to_toml())
    train(config, Events(), out=folder / "run")
    return folder / "config.toml", result(folder / "run"), kills


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(long, tmp_path):
    check_kills(*long, tmp_path / "run")


def test_so_does_one_in_another_mode(other, tmp_path):
    check_kills(*other, tmp_path / "run")


def check_kills(config_file, expected, wanted, out):
    rng, kills = random.Random(0), 0
    process = begin("train", out, config_file)
    while kills < wanted:
        assert wait_for(process, "start"), process.stderr.read()
        for _ in range(rng.randrange(8)):  # counted in steps, so that a slow machine kills at the same places
            assert wait_for(process, "train"), process.stderr.read()
        time.sleep(rng.uniform(0, 0.01))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        process = begin("resume", out)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert result(out) == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_as_a_shell_expects(long, tmp_path, number):
    config_file, *_ = long
    out = tmp_path / "run"
    process = begin("train", out, config_file)
    assert wait_for(process, "train"), process.stderr.read()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    step = checkpoint.newest(out / "checkpoints").step
    assert step > 0
    assert errors == f"stopped and saved at step {step}; go on with: tinyformer train --resume {out}\n"


def test_a_kill_while_the_text_is_read_leaves_no_run(long, tmp_path):
    config_file, *_ = long
    out = tmp_path / "run"
    process = begin("train", out, config_file)
    assert wait_for(process, "prepare"), process.stderr.read()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with pytest.raises(UsageError, match=r"is not a run directory: no config\.toml|no run at"):
        open_run(out)
