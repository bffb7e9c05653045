"""A training run that takes a fraction of a second, and its text."""

import random

import pytest
import tiny_tasks
from tiny_runs import MODEL, OBJECTIVES, Events, result

from tinyformer.training.config import RunConfig
from tinyformer.training.trainer import train


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "data.txt"
    words = random.Random(0).choices(["once", "upon", "a", "time", "there", "was", "no", "end"], k=600)
    path.write_text(" ".join(words))
    return path


@pytest.fixture(scope="session")
def documents(text):
    """A text of documents with blank lines between them, a few words on each line."""
    words = text.read_text().split()
    lines = [" ".join(words[i : i + 2]) for i in range(0, len(words), 2)]
    path = text.with_name("documents.txt")
    path.write_text("\n\n".join("\n".join(lines[i : i + 4 + i % 3]) for i in range(0, len(lines), 6)))
    return path


@pytest.fixture(scope="session")
def pairs(text):
    """Lines of a source and a target, of different lengths."""
    path = text.with_name("pairs.tsv")
    words = text.read_text().split()
    path.write_text("".join(f"{word[: 1 + i % 5]}\t{word[::-1]}\n" for i, word in enumerate(words)))
    return path


@pytest.fixture(scope="session")
def configs(config, documents, pairs):
    """By objective: `config` with it, on a text that is made for it."""
    files = {"seq2seq": pairs, "causal": config.files[0]}
    return {
        name: config.replace(mode=mode, objective=name, files=(files.get(name, documents),), **more)
        for name, (mode, more) in OBJECTIVES.items()
    }


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


@pytest.fixture(scope="session")
def origins(tmp_path_factory):
    """A pretrained run of each mode."""
    folder = tmp_path_factory.mktemp("pretrained")
    return {mode: tiny_tasks.pretrained(folder, mode) for mode in tiny_tasks.MODES}


@pytest.fixture(scope="session")
def examples(tmp_path_factory):
    """Of a task to fine-tune for."""
    return tiny_tasks.write(tmp_path_factory.mktemp("examples") / "train.tsv", tiny_tasks.words(120))
