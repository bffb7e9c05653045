"""How well a trained model predicts a text, every token scored once.

Read before: `tinyformer/text/batches.py` (`scoring_rows`), `tinyformer/objectives/`.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import TinyformerError
from ..objectives import Batch, CausalLM
from ..text import TokenFile, encode_corpus, scoring_rows

TOKENS_AT_ONCE = 4096
LOGITS_AT_ONCE = 1 << 24  # 64 MiB in float32


@dataclass(frozen=True)
class Evaluation:
    """How a text was predicted.

    Attributes:
        loss: nats per token.
        perplexity: exp(loss): between how many equally likely tokens the model was torn, on average.
        bits_per_byte: the same loss per byte of text, which compares models with different tokenizers.
        tokens: how many were scored: all but the first, which nothing precedes.
        text_bytes: of these tokens.
    """

    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: int
    text_bytes: int


def evaluate_file(
    model,
    tokenizer,
    path: Path | str,
    *,
    stride: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Evaluation:
    """Score a decoder on a text file of any size.

    Args:
        model: as `tinyformer.load` returns it.
        tokenizer: the model's own.
        path: the text.
        stride: how many new tokens each window scores; fewer give each token more context and take longer. The
            model's context where None.
        progress: called with done, total, and what is being done.

    Raises:
        UsageError: the file is missing, empty or too short, or the stride is longer than the context.
        TinyformerError: the text cannot be encoded, or the loss is not finite.
    """
    with (
        tempfile.TemporaryDirectory(prefix="tinyformer-") as folder,
        encode_corpus([path], tokenizer, Path(folder) / "text.tokens", progress=progress) as tokens,
    ):
        return evaluate_tokens(model, tokenizer, tokens, stride=stride, progress=progress)


def evaluate_tokens(
    model,
    tokenizer,
    tokens: TokenFile,
    *,
    stride: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Evaluation:
    """Score a decoder on a tokenised text. Arguments and errors as for `evaluate_file`."""
    objective, context = CausalLM(), model.config.context
    rows = max(1, min(TOKENS_AT_ONCE, LOGITS_AT_ONCE // model.config.vocabulary) // context)
    nats, scored = 0.0, 0
    for inputs, targets, weights in scoring_rows(tokens, context, rows, stride=stride):
        batch = Batch(inputs, targets, weights)
        nats += objective.score(model, batch)["nats"]
        scored += int(batch.tokens)
        if progress:
            progress(scored, len(tokens) - 1, "scoring the text")
    if not math.isfinite(nats):
        raise TinyformerError("the loss is not finite: the weights are damaged or diverged, use an earlier checkpoint")
    text_bytes = tokens.text_bytes - len(tokenizer.decode(tokens.read(0, 1)))
    loss = nats / scored
    perplexity = math.exp(loss) if loss < 700 else math.inf
    return Evaluation(loss, perplexity, nats / math.log(2) / text_bytes, scored, text_bytes)
