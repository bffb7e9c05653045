"""From a user's settings and text to what the loop needs: a tokenizer, token files, a model's shape, batches.

Read before: `choices.py`, `rundir.py`, `tinyformer/text/sources.py`. Read next: `loop.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .. import text
from ..analysis.evaluation import Baseline, Unigram, figures
from ..analysis.machine import usable_cores
from ..errors import TinyformerError, UsageError
from ..models import ModelConfig
from ..objectives import Batch, Objective
from ..text import sources
from ..text.spans import Progress, spans
from .choices import (
    inherited_shape,
    inherited_tokenizer,
    machine_for,
    make_objective,
    model_config,
    settle,
)
from .config import RunConfig
from .rundir import Run, open_run
from .step import Workers, score

MOST_LOOKED_AT = 200_000  # tokens of a validation text, to know how often a constant answer is right
ROWS_AT_ONCE = 64
VALIDATION_SHARE = 0.05  # of the time
SMALL_VALIDATION = 200_000  # tokens that the last validation takes in any case
BASELINES = ("unigram_loss", "unigram_accuracy", "next_sentence_chance")


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The text of a run, as batches.

    Attributes:
        tokenizer: made the tokens.
        train: what to train on.
        validation: what is kept apart.
        best: the figure of a validation by which weights are kept as the best ones; None where none are.
        epoch_steps: steps of an epoch; None where epochs are not counted.
    """

    tokenizer: Any
    train: sources.Source
    validation: sources.Source
    best: str | None = None
    epoch_steps: int | None = None

    @property
    def objective(self) -> Objective:
        """Makes a batch of rows, and scores a model on it."""
        return self.train.objective

    def batch(self, step: int, rows: int) -> Batch:
        """The batch of a step, counted from 1: a function of (seed, step), whatever came before."""
        return self.train.batch(step, rows)

    def validation_batches(self, rows: int, most_tokens: int) -> Iterator[Batch]:
        """The validation text in batches, the same each time: all of it, or an even choice of `most_tokens` tokens."""
        return self.validation.in_order(rows, most_tokens)

    @functools.cached_property
    def references(self) -> dict[str, float | None]:
        """Figures to compare with: guessing evenly (ln v), and knowing how common each target is (unigram).

        The entropy is that of the training text. On the validation text, `unigram_loss` is what knowing the training
        text's shares gives, and the accuracies those of always saying its commonest token, and the commoner kind of
        pair.
        """
        unigram = Unigram.of(self.objective, self.train.target_counts(), self.train.context)
        per_byte = self.per_byte(self.train, unigram.entropy)
        baseline = Baseline(self.objective, unigram)
        for batch in self.validation_batches(ROWS_AT_ONCE, MOST_LOOKED_AT):
            baseline.add(batch)
        return {
            "ln_v": math.log(self.tokenizer.vocabulary_size),
            "unigram_entropy": unigram.entropy,
            "unigram_entropy_per_byte": per_byte,
            "unigram_bits_per_byte": bits(per_byte),
            **baseline.figures(),
        }

    @property
    def facts(self) -> dict[str, Any]:
        """How much text there is, and the figures to compare with: what the "start" event tells of it."""
        sizes = {"train_tokens": len(self.train.tokens), "validation_tokens": len(self.validation.tokens)}
        return sizes | self.references

    @property
    def baselines(self) -> dict[str, Any]:
        """What to compare a validation with."""
        return {name: self.references.get(name) for name in BASELINES}

    def validate(
        self,
        model: Any,
        workers: Workers,
        *,
        step: int,
        rows: int,
        trained: int,
        last: bool,
        progress: Callable[[int, int], None],
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """How well a model predicts the validation text, or a part of it that takes a small share of the time.

        Args:
            model: as it is now.
            workers: share the work.
            step: that was done last.
            rows: of a batch.
            trained: rows of training since the validation before; of the last one, since the beginning.
            last: whether the training ends with it.
            progress: called before each batch with rows done, and rows in all; what it raises ends the validation.

        Returns:
            The figures of `analysis.evaluation.figures`, and of a decoder `bits_per_byte`; and what else the
            "validation" event has.
        """
        # A token costs a third of what it does in training, as there is no backward pass.
        most = int(trained * self.validation.row_tokens * 3 * VALIDATION_SHARE)
        most = max(most, SMALL_VALIDATION if last else 0)
        total = self.validation.used(most)

        def told() -> Iterator[Batch]:
            done = 0
            for batch in self.validation_batches(rows, most):
                progress(min(done, total), total)
                done += len(batch)
                yield batch

        sums = score(model, self.objective, told(), workers)
        found = figures(sums)
        nats = self.per_byte(self.validation, found["loss"])
        if nats is not None:
            found["bits_per_byte"] = bits(nats)
        return found, {"loss_per_byte": nats, "tokens": int(sums["tokens"])}

    def per_byte(self, part: sources.Source, loss: float) -> float | None:
        """A loss in nats per token as nats per byte of a part of the text; None where not every token is a target."""
        if self.objective.mode != "decoder":
            return None
        return loss * len(part.tokens) / part.tokens.text_bytes


def bits(nats: float | None) -> float | None:
    """Nats as bits."""
    return None if nats is None else nats / math.log(2)


def tokens_read(batch: Batch) -> int:
    """Tokens that a model reads in a batch, of sources and of targets, without padding."""
    read = batch.inputs.size if batch.mask is None else np.count_nonzero(batch.mask)
    if batch.decoder_inputs is not None:
        read += batch.decoder_inputs.size if batch.weights is None else np.count_nonzero(batch.weights)
    return int(read)


def prepare(
    run: Run, config: RunConfig, progress: Progress, warn: Callable[[str], None]
) -> tuple[RunConfig, ModelConfig, Corpus]:
    """Make the tokenizer and the token files of a new run, and settle whatever was left open.

    Args:
        run: where they go.
        config: the settings, from `choices.settle_mode`.
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
    machine_for(config)
    # So that a wrong size or a missing file is told before a long text is read.
    shape = model_config(config) if config.init_from is None else inherited_shape(config)
    if isinstance(config.validation, str):
        spans([config.validation])
    if config.init_from is None:
        tokenizer = text.make_tokenizer(
            config.tokenizer,
            config.files,
            vocabulary_size=config.vocab_size,
            special_tokens=text.special_tokens(config.mode),
            progress=progress,
        )
        shape = model_config(config, tokenizer.vocabulary_size)
    else:
        tokenizer = inherited_tokenizer(config)
    objective = make_objective(config, tokenizer, shape.context)
    train, validation = sources.split_text(
        objective,
        config.files,
        tokenizer,
        run.path,
        validation=config.validation,
        context=shape.context,
        processes=config.threads or usable_cores(),
        progress=progress,
        warn=warn,
    )
    tokenizer.save(run.tokenizer_file)
    settled = settle(config, shape, tokenizer)
    return settled, shape, _corpus(tokenizer, train, validation, shape, settled)


def reopen(run: Run, config: RunConfig) -> tuple[ModelConfig, Corpus]:
    """What `prepare` made, for a run that goes on.

    Raises:
        UsageError: the run was imported, and so has no text.
        TinyformerError: the tokenizer or a token file is missing or damaged.
    """
    if not config.files:
        way = f"tinyformer train --init-from {shlex.quote(str(run.path))} FILE"
        raise UsageError(f"{run.path} was imported and has no text to go on with; begin a new run from it: {way}")
    if not run.tokenizer_file.exists():
        raise TinyformerError(f"the run has lost its tokenizer.json; put {run.tokenizer_file} back, or start a new run")
    tokenizer = text.load_tokenizer(run.tokenizer_file)
    shape = model_config(config, None if config.init_from else tokenizer.vocabulary_size)
    train, validation = _stored(run.train_tokens), _stored(run.validation_tokens)
    return shape, _corpus(tokenizer, train, validation, shape, config)


def open_training(run: str | Path, tokenizer: Any, shape: ModelConfig) -> tuple[Objective, Unigram | None]:
    """What a run learned, for scoring its model on other text.

    Args:
        run: its directory, or one of its checkpoints.
        tokenizer: the run's.
        shape: of its model.

    Returns:
        Its objective, and how common its targets are; None where its text is not there, as in a run that was
        imported.
    """
    opened = open_run(run)
    config = opened.config()
    objective = make_objective(config.replace(mode=shape.mode), tokenizer, shape.context)
    if not opened.train_tokens.exists():
        return objective, None
    source = sources.open_source(objective, text.TokenFile.open(opened.train_tokens), shape.context, config.seed)
    return objective, Unigram.of(objective, source.target_counts(), shape.context)


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
    objective = make_objective(config, tokenizer, shape.context)
    parts = [
        sources.open_source(objective, tokens, shape.context, config.seed, fixed=config.masking == "fixed")
        for tokens in (train, validation)
    ]
    return Corpus(tokenizer, *parts)
