"""A training run that takes a fraction of a second, and the ways to look at what it left."""

import random

import pytest

from tinyformer.training.config import RunConfig
from tinyformer.training.rundir import open_run
from tinyformer.training.runlog import read_log
from tinyformer.training.trainer import train

MODEL = {"layers": 1, "width": 8, "heads": 2, "hidden": 16, "context": 8, "dropout": 0.1}


class Events(list):
    """A reporter that keeps what it is told, and may act on it."""

    def __init__(self, act=lambda event: None):
        super().__init__()
        self._act = act

    def __call__(self, event):
        self.append(event)
        self._act(event)

    def of(self, kind):
        return [event for event in self if event["event"] == kind]


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "data.txt"
    words = random.Random(0).choices(["once", "upon", "a", "time", "there", "was", "no", "end"], k=600)
    path.write_text(" ".join(words))
    return path


@pytest.fixture(scope="session")
def config(text):
    return RunConfig(
        files=(text,), model=MODEL, tokenizer="chars", steps=12, batch_size=5, grad_accumulation=2, threads=2,
        eval_every=4, save_every=3, sample_every=0, log_every=1, learning_rate=0.01,
    )  # fmt: skip


def result(path):
    """What a finished run comes down to: its last checkpoint's bytes, and its log without the speeds."""
    run = open_run(path)
    last = max(run.checkpoints.iterdir())
    log = [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in read_log(run.log_file)]
    return last.name, *((last / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")), log


@pytest.fixture(scope="session")
def uninterrupted(config, tmp_path_factory):
    """The result of `config` without an interruption."""
    out = tmp_path_factory.mktemp("runs") / "uninterrupted"
    train(config, Events(), out=out)
    return result(out)
