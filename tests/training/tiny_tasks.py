"""A task that a tiny model learns in a second: which of two letters a word has; and the models to begin with."""

import random

from tiny_runs import Events

from tinyformer.training import tuning
from tinyformer.training.config import RunConfig
from tinyformer.training.trainer import train

SHAPE = {"layers": 1, "width": 16, "heads": 2, "hidden": 32, "context": 12, "dropout": 0.1}
MODES = ("decoder", "encoder", "encoder-decoder")


def words(count, seed=0, letters="xy"):
    """Words of other letters around one of these, and which one it is."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        label = rng.choice(letters)
        letters_around = rng.choices("abc", k=rng.randrange(2, 7))
        letters_around.insert(rng.randrange(len(letters_around)), label)
        found.append(("".join(letters_around), label))
    return found


def write(path, pairs):
    """Lines of `text TAB label`."""
    path.write_text("".join(f"{text}\t{label}\n" for text, label in pairs))
    return path


def pretrained(folder, mode):
    """A run that has hardly learned anything."""
    text = folder / "text.txt"
    text.write_text("\n\n".join(" ".join((a, b)) for (a, _), (b, _) in zip(words(80, seed=9), words(80, seed=8))))
    config = RunConfig(mode=mode, files=(text,), model=SHAPE, tokenizer="chars", steps=2, batch_size=4, sample_every=0)
    train(config, Events(), out=folder / mode)
    return folder / mode


def settings(run, file, task="classify", **more):
    """Of a fine-tuning that takes a second."""
    given = {"epochs": 4, "batch_size": 8, "learning_rate": 0.02, "threads": 2, "log_every": 1, "validation": 0.2}
    return tuning.settings(task, str(run), str(file), **(given | more))
