"""A small decoder with strong opinions, and the plain way to say how likely it finds an answer."""

import numpy as np

from tinyformer.models import build, resolve
from tinyformer.text import make_tokenizer


def decoder(vocabulary=256, context=40, dtype="float64", **given):
    config = resolve("tiny", vocabulary=vocabulary, context=context, layers=2, width=16, heads=2, **given)
    model = build(config, dtype=dtype, seed=3)
    for parameter in model.parameters().values():
        if parameter.ndim == 2:
            parameter.array *= 12  # far from uniform, so that a wrong position or key shows
    return model


def bpe(folder, text="a good day, a bad day. good => yes, bad => no\n\n" * 30, size=280):
    path = folder / "text.txt"
    path.write_text(text)
    return make_tokenizer("bpe", [path], vocabulary_size=size)


def log_probability(model, prompt, answer):
    """Of the answer's ids after the prompt's, by reading them all at once."""
    ids = np.concatenate([prompt, answer])
    logits = model(ids[None]).numpy()[0, len(prompt) - 1 : -1].astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    return sum(row[token] - np.log(np.exp(row).sum()) for row, token in zip(logits, answer))
