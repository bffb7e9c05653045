"""How well a trained model predicts a text.

A decoder scores every token once, with as much of the text before it as fits its context. Other models are scored as
they were trained, on corruptions of the text that are the same each time.

Read before: `tinyformer/text/batches.py` (`scoring_rows`), `tinyformer/text/sources.py`, `tinyformer/objectives/`.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from ..errors import TinyformerError, UsageError
from ..objectives import Batch, CausalLM, Objective
from ..tensor import Array
from ..text import TokenFile, scoring_rows
from ..text.sources import encode_text, open_source
from ..text.spans import Progress

TOKENS_AT_ONCE = 4096
LOGITS_AT_ONCE = 1 << 24  # 64 MiB in float32


@dataclass(frozen=True)
class Evaluation:
    """How a text was predicted. What has no meaning for the objective is None.

    Attributes:
        loss: nats per target token.
        accuracy: share of the targets that were the most probable token; of span corruption, of those that are text.
        tokens: how many targets were scored; of a decoder, all tokens but the first, which nothing precedes.
        perplexity: exp(loss): between how many equally likely tokens the model was torn, on average.
        bits_per_byte: a decoder's loss per byte of text, which compares models with different tokenizers.
        text_bytes: of the tokens that a decoder scored.
        next_sentence_loss: nats per pair.
        next_sentence_accuracy: share of the pairs that were told apart rightly.
        exact_match: share of the targets of pairs that were right at every place, as greedy writing would have them.
        sequences: pairs of source and target that were scored.
        unigram_loss: nats per target to who knows only how common each token is in the training text; of a model whose
            training text is not there, in the text itself.
        unigram_accuracy: what always saying the commonest token of that text would have reached.
        next_sentence_chance: what always saying the commoner kind of pair would have reached.
    """

    loss: float
    accuracy: float
    tokens: int
    perplexity: float
    bits_per_byte: float | None = None
    text_bytes: int | None = None
    next_sentence_loss: float | None = None
    next_sentence_accuracy: float | None = None
    exact_match: float | None = None
    sequences: int | None = None
    unigram_loss: float | None = None
    unigram_accuracy: float | None = None
    next_sentence_chance: float | None = None


@dataclass(frozen=True)
class Unigram:
    """What can be known of the targets without looking at the text.

    Attributes:
        token: the commonest one among those that are asked for.
        entropy: nats per target of the text that was counted, to who knows how common each is.
        log_shares: of each id: what it is to be expected with in another text, `v`. So that nothing is impossible, this
            is as if one more token had been seen, of all kinds alike.
    """

    token: int
    entropy: float
    log_shares: Array

    @classmethod
    def of(cls, objective: Objective, counts: Array, context: int) -> Self:
        """From how often each id occurs in the training text, `v`."""
        shares = objective.target_shares(counts, context)
        some = shares[shares > 0]
        text, seen = np.arange(len(shares))[None], int(counts.sum())
        token = int((shares * objective.asked(Batch(text, text))[0]).argmax())
        log_shares = np.log((seen * shares + 1 / len(shares)) / (seen + 1))
        return cls(token, float(-(some * np.log(some)).sum()), log_shares)


class Baseline:
    """What answers that do not look at the text would reach: how common each token is, the same kind of pair.

    Args:
        objective: made the batches.
        unigram: what is known of the targets, where it is.
    """

    def __init__(self, objective: Objective, unigram: Unigram | None) -> None:
        self._objective, self._unigram, self._right, self._asked = objective, unigram, 0.0, 0.0
        self._nats, self._tokens = 0.0, 0.0
        self._pairs, self._random = 0, 0

    def add(self, batch: Batch) -> None:
        """Count a batch."""
        if self._unigram is not None:
            asked = self._objective.asked(batch)
            self._right += float(asked[batch.targets == self._unigram.token].sum())
            self._asked += float(asked.sum())
            weights = np.ones(batch.targets.shape) if batch.weights is None else batch.weights
            self._nats -= float((weights * self._unigram.log_shares[batch.targets]).sum())
            self._tokens += float(weights.sum())
        if batch.labels is not None:
            self._pairs, self._random = self._pairs + len(batch), self._random + int(batch.labels.sum())

    def figures(self) -> dict[str, float]:
        """By the names that `Evaluation` has for them, where there is something to say."""
        found = {"unigram_loss": self._nats / self._tokens} if self._tokens else {}
        if self._asked:
            found["unigram_accuracy"] = self._right / self._asked
        if self._pairs:
            found["next_sentence_chance"] = max(self._random, self._pairs - self._random) / self._pairs
        return found


def figures(sums: Mapping[str, float]) -> dict[str, float]:
    """Means from the sums of an objective's `score`, by the names that `Evaluation` has for them."""

    def mean(what: str, of: str) -> float:
        return sums[what] / sums[of] if sums[of] else math.nan

    found = {"loss": mean("nats", "tokens"), "accuracy": mean("correct", "asked")}
    if "pairs" in sums:
        found["next_sentence_loss"] = mean("pairs_nats", "pairs")
        found["next_sentence_accuracy"] = mean("pairs_correct", "pairs")
    if "sequences" in sums:
        found["exact_match"] = mean("exact", "sequences")
    return found


def evaluate_file(
    model,
    tokenizer,
    path: Path | str,
    *,
    objective: Objective | None = None,
    stride: int | None = None,
    unigram: Unigram | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model on a file of any size: a text, or for pairs lines of `source TAB target`.

    Args:
        model: as `tinyformer.load` returns it.
        tokenizer: the model's own.
        path: the file.
        objective: what the model was trained on; `CausalLM` where None.
        stride: of a decoder: how many new tokens each window scores; fewer give each token more context and take
            longer. The model's context where None.
        unigram: what is known of the training text's targets, to compare with; of this text's own where None.
        progress: called with done, total, and what is being done.

    Raises:
        UsageError: the file is missing, empty, too short or no pairs; the stride is longer than the context, or given
            for a model that is no decoder.
        TinyformerError: the text cannot be encoded, or the loss is not finite.
    """
    objective, context = objective or CausalLM(), model.config.context
    if stride is not None and objective.mode != "decoder":
        raise UsageError(f"--stride belongs to decoders, and this is a model of mode {objective.mode}; leave it out")
    with (
        tempfile.TemporaryDirectory(prefix="tinyformer-") as folder,
        encode_text(
            objective, path, tokenizer, Path(folder) / "text.tokens", context=context, progress=progress
        ) as tokens,
    ):
        return evaluate_tokens(
            model, tokenizer, tokens, objective=objective, stride=stride, unigram=unigram, progress=progress
        )


def evaluate_tokens(
    model,
    tokenizer,
    tokens: TokenFile,
    *,
    objective: Objective | None = None,
    stride: int | None = None,
    unigram: Unigram | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model on a tokenised text. Arguments and errors as for `evaluate_file`."""
    objective, context = objective or CausalLM(), model.config.context
    rows = max(1, min(TOKENS_AT_ONCE, LOGITS_AT_ONCE // model.config.vocabulary) // context)
    source = open_source(objective, tokens, context, seed=0)
    if unigram is None:
        unigram = Unigram.of(objective, source.target_counts(), context)
    if objective.mode == "decoder":
        total, batches = len(tokens) - 1, _scored_once(tokens, context, rows, stride)
    else:
        total, batches = len(source), source.in_order(rows)
    sums: dict[str, float] = {}
    done, baseline = 0, Baseline(objective, unigram)
    for batch in batches:
        for name, value in objective.score(model, batch).items():
            sums[name] = sums.get(name, 0.0) + value
        baseline.add(batch)
        done += int(batch.tokens) if objective.mode == "decoder" else len(batch)
        if progress:
            progress(min(done, total), total, "scoring the text")
    if not sums.get("tokens"):
        raise UsageError("the text is too short: there is nothing to predict in it; give a longer one")
    found = figures(sums)
    if not all(map(math.isfinite, found.values())):
        raise TinyformerError("the loss is not finite: the weights are damaged or diverged, use an earlier checkpoint")
    beside = baseline.figures()
    if objective.mode == "decoder":
        text_bytes = tokens.text_bytes - len(tokenizer.decode(tokens.read(0, 1)))
        beside |= {"text_bytes": text_bytes, "bits_per_byte": sums["nats"] / math.log(2) / text_bytes}
    if "sequences" in sums:
        beside["sequences"] = int(sums["sequences"])
    perplexity = math.exp(found["loss"]) if found["loss"] < 700 else math.inf
    return Evaluation(tokens=int(sums["tokens"]), perplexity=perplexity, **found, **beside)


def _scored_once(tokens: TokenFile, context: int, rows: int, stride: int | None) -> Iterator[Batch]:
    for inputs, targets, weights in scoring_rows(tokens, context, rows, stride=stride):
        yield Batch(inputs, targets, weights)
