"""A training run that takes a fraction of a second, and its text."""

import random

import pytest
from tiny_runs import MODEL, Events, result

from tinyformer.training.config import RunConfig
from tinyformer.training.trainer import train


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


@pytest.fixture(scope="session")
def uninterrupted(config, tmp_path_factory):
    """The result of `config` without an interruption."""
    out = tmp_path_factory.mktemp("runs") / "uninterrupted"
    train(config, Events(), out=out)
    return result(out)
