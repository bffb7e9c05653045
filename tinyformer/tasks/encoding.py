"""From an example's texts to the row of tokens that a model reads, cut to its context by a stated rule.

An encoder reads what BERT did: `<cls> A <sep>`, or `<cls> A <sep> B <sep>`, where the tokens of B, and the mark after
it, are of segment 1 (Devlin 2019, §3). A decoder reads the text, or A, a line break, B; and an end token if its
tokenizer has one, where it gives its answer; else that is asked of the text's last token.

What is too long loses its end. Of two texts the longer one loses tokens, one at a time, until both fit; of two equally
long ones the second, as in BERT's `_truncate_seq_pair`.

Read before: `examples.py`. Read next: `heads.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..models import ModelConfig
from ..text import Tokenizer


class Framing:
    """How one tokenizer and one model have texts laid out.

    Args:
        tokenizer: of the run.
        config: of the model: an encoder or a decoder.

    Attributes:
        pad: id that fills a row; 0 where the tokenizer has none, as padding is never looked at.
        context: of the model.

    Raises:
        UsageError: an encoder's tokenizer lacks a token, or the context has no room for texts.
    """

    def __init__(self, tokenizer: Tokenizer, config: ModelConfig) -> None:
        raise NotImplementedError

    def room(self, texts: int) -> int:
        """Tokens that one or two texts may have together."""
        raise NotImplementedError

    def encode(self, text: str, place: str = "the text") -> np.ndarray:
        """A text's tokens, int32."""
        raise NotImplementedError

    def layout(self, texts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
        """A row of one or two texts' tokens, and its segments (None where all are 0); the texts fit."""
        raise NotImplementedError

    def starts(self, texts: Sequence[np.ndarray]) -> tuple[int, ...]:
        """Where in the row each text begins."""
        raise NotImplementedError

    def pad_rows(self, rows: Sequence[Any]) -> dict[str, np.ndarray]:
        """`Row`s as the arrays `inputs`, and `mask` and `segments` where needed, of a Batch."""
        raise NotImplementedError


def shorten(lengths: Sequence[int], most: int) -> tuple[int, ...]:
    """How many tokens one or two texts keep, so that they are at most `most` together."""
    raise NotImplementedError


def tell_cut(rows: Iterable[Any], context: int) -> str | None:
    """A sentence on how many of the rows (lists of them are examples) were cut; None where none was."""
    raise NotImplementedError
