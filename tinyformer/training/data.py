"""From a user's settings and text to what the loop needs: a tokenizer, token files, a model's shape, batches.

Read before: `config.py`, `rundir.py`. Read next: `loop.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .. import backends, text
from ..errors import TinyformerError, UsageError
from ..models import ModelConfig, default_learning_rate, resolve
from ..objectives import Batch, CausalLM
from ..text.spans import spans
from .config import RunConfig, absolute
from .rundir import Run
from .step import CORRUPTION, VALIDATION, host_random

OBJECTIVES = {"decoder": CausalLM}  # what a mode trains on
MOST_SIZE = 1 << 20  # of a model; no machine has room for more, and all divisors of a width are tried
MOST_LAYERS = 1 << 14  # which alone choose a width of 64 times as much

Progress = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The text of a run, as batches.

    Attributes:
        tokenizer: made the tokens.
        train: tokens to train on.
        validation: tokens that are kept apart.
        context: tokens in a row.
        objective: makes a batch of rows.
        seed: with a step's number, fixes its batch.
    """

    tokenizer: Any
    train: text.TokenFile
    validation: text.TokenFile
    context: int
    objective: Any
    seed: int

    def batch(self, step: int, rows: int) -> Batch:
        """The batch of a step, counted from 1: a function of (seed, step), whatever came before."""
        starts = self._order.starts(step - 1, rows)
        rng = host_random(self.seed, CORRUPTION, step)
        return self.objective.corrupt(self.train.windows(starts, self.objective.row_tokens(self.context)), rng)

    @functools.cached_property
    def _order(self) -> text.Windows:
        size, overlap = self.objective.row_tokens(self.context), self.objective.overlap
        return text.Windows(len(self.train), size, self.seed, overlap=overlap)

    def validation_batches(self, rows: int, most_tokens: int) -> Iterator[Batch]:
        """The validation text in batches, the same each time.

        All of it if it has at most `most_tokens` tokens; else that many, in rows spread evenly over it.
        """
        extra, count = self.objective.overlap, len(self.validation)
        whole = (count - extra) // self.context
        used = min(whole, max(1, most_tokens // self.context))
        starts = np.arange(used) * whole // used * self.context
        for number, first in enumerate(range(0, used, rows)):
            stretch = self.validation.windows(starts[first : first + rows], self.context + extra)
            yield self.objective.corrupt(stretch, host_random(self.seed, VALIDATION, number))
        rest = count - whole * self.context
        if used == whole and rest > extra:
            stretch = self.validation.windows(np.array([whole * self.context]), rest)
            yield self.objective.corrupt(stretch, host_random(self.seed, VALIDATION, used))

    def first_word(self) -> str:
        """The first word of the training text, cut where it is long: a prompt that the tokenizer surely knows."""
        beginning = self.tokenizer.decode(self.train.read(0, min(len(self.train), 64))).decode("utf-8", "ignore")
        words = (word[:20] for word in beginning.split())
        return next((word for word in words if word.isprintable() and not word.startswith("-")), "")

    def references(self) -> dict[str, float]:
        """Losses to compare with: guessing evenly (ln v), and by how common each token is (unigram entropy)."""
        counts = self.train.counts()
        shares = counts[counts > 0] / counts.sum()
        entropy = float(-(shares * np.log(shares)).sum())
        per_byte = len(self.train) / self.train.text_bytes
        return {
            "ln_v": math.log(self.tokenizer.vocabulary_size),
            "unigram_entropy": entropy,
            "unigram_entropy_per_byte": entropy * per_byte,
            "unigram_bits_per_byte": entropy * per_byte / math.log(2),
        }


def per_byte(tokens: text.TokenFile, loss: float) -> float:
    """A loss in nats per token as nats per byte of the text."""
    return loss * len(tokens) / tokens.text_bytes


def prepare(
    run: Run, config: RunConfig, progress: Progress, warn: Callable[[str], None]
) -> tuple[RunConfig, ModelConfig, Corpus]:
    """Make the tokenizer and the token files of a new run, and settle whatever was left open.

    Args:
        run: where they go.
        config: the settings.
        progress: called with bytes done, bytes in all, and what is being done.
        warn: told, in a sentence, what is strange about the text.

    Returns:
        The settings with everything chosen, the model's shape, and the text.

    Raises:
        UsageError: the settings contradict each other, or the text cannot be used.
        TinyformerError: a file cannot be read or written.
    """
    if not config.files:
        raise UsageError("no text to train on; name at least one file")
    choose_backend(config.backend)
    # So that a wrong size or a missing file is told before a long text is read.
    model_config(config)
    if isinstance(config.validation, str):
        spans([config.validation])
    tokenizer = text.make_tokenizer(
        config.tokenizer, config.files, vocabulary_size=config.vocab_size, progress=progress
    )
    shape = model_config(config, tokenizer.vocabulary_size)
    train, validation = text.split_corpus(
        config.files,
        tokenizer,
        run.path,
        validation=config.validation,
        context=shape.context,
        progress=progress,
        warn=warn,
    )
    tokenizer.save(run.tokenizer_file)
    model = dataclasses.asdict(shape)
    mode = model.pop("mode")
    rate = config.learning_rate
    settled = config.replace(
        mode=mode,
        model=model,
        **{name: absolute(name, getattr(config, name)) for name in ("files", "validation", "tokenizer")},
        vocab_size=tokenizer.vocabulary_size if config.tokenizer == "bpe" else config.vocab_size,
        learning_rate=default_learning_rate(shape) if rate is None else rate,
        warmup=config.steps // 20 if config.warmup is None else config.warmup,
        backend=choose_backend(config.backend),
        threads=min(_processors(), config.batch_size) if config.threads is None else config.threads,
    )
    return settled, shape, _corpus(tokenizer, train, validation, shape, settled)


def reopen(run: Run, config: RunConfig) -> tuple[ModelConfig, Corpus]:
    """What `prepare` made, for a run that goes on.

    Raises:
        TinyformerError: the tokenizer or a token file is missing or damaged.
    """
    if not run.tokenizer_file.exists():
        raise TinyformerError(f"the run has lost its tokenizer.json; put {run.tokenizer_file} back, or start a new run")
    tokenizer = text.load_tokenizer(run.tokenizer_file)
    shape = model_config(config, tokenizer.vocabulary_size)
    train, validation = _stored(run.train_tokens), _stored(run.validation_tokens)
    return shape, _corpus(tokenizer, train, validation, shape, config)


def _stored(path: Path) -> text.TokenFile:
    """A token file of a run, which needs the very ids that it began with."""
    try:
        return text.TokenFile.open(path)
    except TinyformerError as error:
        reason = str(error).partition(";")[0]
        raise TinyformerError(f"{reason}; the run cannot go on without it: start a new run from the text") from error


def _corpus(
    tokenizer: Any, train: text.TokenFile, validation: text.TokenFile, shape: ModelConfig, config: RunConfig
) -> Corpus:
    return Corpus(tokenizer, train, validation, shape.context, OBJECTIVES[shape.mode](), config.seed)


def model_config(config: RunConfig, vocabulary: int | None = None) -> ModelConfig:
    """The model's shape for a vocabulary; by default the one that a run's settings name, or a stand-in of 1.

    Raises:
        UsageError: a setting is unknown, of the wrong kind, or contradicts another.
    """
    given = dict(config.model)
    for field in dataclasses.fields(ModelConfig):
        value = given.get(field.name)
        kind = {"int": int, "float": (int, float), "bool": bool, "str": str}[str(field.type).removesuffix(" | None")]
        wrong = not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
        if value is not None and wrong:
            raise UsageError(f"{field.name} in [model] should be of type {field.type}, and is {value!r}")
        most = MOST_LAYERS if field.name == "layers" else MOST_SIZE
        if value is not None and kind is int and value > most:
            raise UsageError(f"{field.name} must be at most {most}, and is {value}")
    written = given.pop("vocabulary", None)
    if None not in (written, vocabulary) and written != vocabulary:
        raise UsageError(
            f"[model] has a vocabulary of {written}, and the tokenizer one of {vocabulary}; remove that line"
        )
    return resolve(config.preset, mode=config.mode, vocabulary=vocabulary or written or 1, **given)


def choose_backend(name: str) -> str:
    """The name of the backend that will be used.

    Raises:
        UsageError: it is unknown, or cannot run here.
    """
    try:
        return backends.get(name).name
    except backends.BackendUnavailable as error:
        raise UsageError(str(error)) from error


def _processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
