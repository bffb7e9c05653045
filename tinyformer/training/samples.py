"""What a user can see of a run besides its figures: how the model writes or fills in now, and what to type next.

Read before: `data.py`, `tinyformer/generation/`. Read next: `loop.py`.
"""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np

from ..generation import Options, generate_texts, sample_text
from ..objectives import Batch
from ..tasks import Task
from ..tensor import no_grad
from ..text.sources import open_source
from .data import Corpus

SAMPLE_TOKENS = 200  # that a decoder writes
EXCERPT_TOKENS = 96  # that other models are shown
_PAIRS = 4  # answers of a model of pairs
_WORDS = 8  # of the sentence in a command
_MASK = "<mask>"


def sample(corpus: Corpus, model: Any, seed: int) -> dict[str, Any]:
    """What the model makes of a piece of text.

    A decoder writes freely. An encoder fills in the hidden tokens of a row of the validation text, and an
    encoder-decoder answers sources of it with its likeliest tokens; these are the same each time, so that a reader
    sees what has been learned.

    Args:
        corpus: the run's.
        model: as it is now.
        seed: of what a decoder writes.

    Returns:
        `text`, or from an encoder-decoder `answers`, each with its `source`, `answer` and `target`; and for what is not
        a text by itself a `legend`.
    """
    tokenizer = corpus.tokenizer
    mode = corpus.objective.mode
    if mode == "decoder":
        return {"text": _words(sample_text(model, tokenizer, b"", SAMPLE_TOKENS, seed=seed))}
    short = open_source(corpus.objective, corpus.validation.tokens, min(corpus.train.context, EXCERPT_TOKENS), seed=0)
    if mode == "encoder":
        legend = "[hidden token as the model guesses it], and the right one after / where that is another"
        return {"text": _filled_in(corpus, model, next(short.in_order(1, 1))), "legend": legend}
    batch = next(short.in_order(_PAIRS, _PAIRS * short.row_tokens))
    rows = range(_PAIRS if corpus.objective.name == "seq2seq" else 1)
    answers = [_answer(corpus, model, batch.rows(row, row + 1)) for row in rows[: len(batch)]]
    return {"answers": answers, "legend": "what the model reads, what it writes, and what is right"}


def _filled_in(corpus: Corpus, model: Any, batch: Batch) -> str:
    """A row of text with the model's guesses in it."""
    with no_grad():
        logits = corpus.objective.predict(model, batch).logits
    guesses = iter(logits.numpy().argmax(-1).tolist())
    special, parts = set(corpus.tokenizer.special_tokens.values()), []
    for target, weight in zip(batch.targets[0].tolist(), batch.weights[0].tolist()):
        truth = corpus.tokenizer.decode([target])
        if weight:
            guess = next(guesses)
            parts.append(b"[" + corpus.tokenizer.decode([guess]) + (b"]" if guess == target else b"/" + truth + b"]"))
        elif target not in special:
            parts.append(truth)
        elif parts and parts[-1] != b"\n":
            parts.append(b"\n")  # between documents
    return _words(b"".join(parts))


def _answer(corpus: Corpus, model: Any, batch: Batch) -> dict[str, str]:
    """A source, what the model writes to it, and the target."""
    source = batch.inputs[0] if batch.mask is None else batch.inputs[0][batch.mask[0]]
    target = batch.targets[0] if batch.weights is None else batch.targets[0][batch.weights[0] > 0]
    options = Options(tokens=2 * len(target), temperature=0.0)
    answer = generate_texts(model, corpus.tokenizer, source.astype(np.int64), options)[0]
    texts = {"source": corpus.tokenizer.decode(source[:-1]), "answer": answer}
    texts["target"] = corpus.tokenizer.decode(target[:-1])
    return {name: _words(text) for name, text in texts.items()}


def next_command(corpus: Corpus, run: str) -> str:
    """A command that shows what the trained model can do, with words from the run's own text."""
    run = shlex.quote(run)
    if isinstance(corpus.objective, Task):
        return f"tinyformer predict {run} {shlex.quote(corpus.file)}"
    if corpus.objective.mode == "decoder":
        word = first_word(corpus)
        prompt = f" --prompt {shlex.quote(word)}" if word else ""
        return f"tinyformer generate {run}{prompt} --tokens {SAMPLE_TOKENS}"
    if corpus.objective.name == "seq2seq":
        source = next(corpus.validation.in_order(1, 1)).inputs[0][:-1]
        return f"tinyformer generate {run} --prompt {shlex.quote(_words(corpus.tokenizer.decode(source)))}"
    return f"tinyformer fill {run} {shlex.quote(_sentence(corpus))}"


def first_word(corpus: Corpus) -> str:
    """The first word of the training text, cut where it is long: a prompt that the tokenizer surely knows."""
    words = (word[:20] for word in _beginning(corpus).split())
    return next((word for word in words if word.isprintable() and not word.startswith("-")), "")


def _sentence(corpus: Corpus) -> str:
    """Some words of the training text with one token hidden: of byte pairs about a word, else one character."""
    lines = ([word for word in line.split() if word.isprintable()] for line in _beginning(corpus).splitlines())
    words = max(lines, key=lambda line: min(len(line), _WORDS), default=[])[:_WORDS]
    room = corpus.train.context - 3  # of characters even where each is a token, beside the mask and marks at the ends
    while len(" ".join(words)) > room:
        words.pop()
    if not words:
        return _MASK
    middle = len(words) // 2
    word = words[middle]
    whole = len(words) > 1 and corpus.tokenizer.kind not in ("bytes", "chars")
    words[middle] = _MASK if whole else word[: len(word) // 2] + _MASK + word[len(word) // 2 + 1 :]
    return " ".join(words)


def _beginning(corpus: Corpus) -> str:
    """The beginning of the training text, without special tokens."""
    tokens = corpus.train.tokens
    ids = tokens.read(0, min(len(tokens), 64))
    special = list(corpus.tokenizer.special_tokens.values())
    return corpus.tokenizer.decode(ids[~np.isin(ids, special)]).decode("utf-8", "ignore")


def _words(text: bytes) -> str:
    return text.decode("utf-8", "replace")
