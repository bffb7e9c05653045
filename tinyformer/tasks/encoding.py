"""From an example's texts to the row of tokens that a model reads, cut to its context by a stated rule.

An encoder reads what BERT did: `<cls> A <sep>`, or `<cls> A <sep> B <sep>`, where the tokens of B, and the mark after
it, are of segment 1 (Devlin 2019, §3). A decoder reads the text, or A, a line break, B; and an end token if its
tokenizer has one, where it gives its answer; else that is asked of the text's last token.

What is too long loses its end. Of two texts the longer one loses tokens, one at a time, until both fit; of two equally
long ones the second, as in BERT's `_truncate_seq_pair`.

Read before: `examples.py`. Read next: `heads.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ..errors import UsageError
from ..models import ModelConfig
from ..objectives import Batch, pad_rows
from ..text import Tokenizer
from ..text.special import SPELLINGS
from .task import Row

BETWEEN = "\n"  # two texts that a decoder reads


class Framing:
    """How one tokenizer and one model have texts laid out.

    Args:
        tokenizer: of the run.
        config: of the model: an encoder or a decoder.

    Attributes:
        tokenizer: the same.
        context: of the model.
        pad: id that fills a row; 0 where the tokenizer has none, as padding is never looked at.

    Raises:
        UsageError: an encoder's tokenizer lacks a special token.
    """

    def __init__(self, tokenizer: Tokenizer, config: ModelConfig) -> None:
        self.tokenizer, self.context = tokenizer, config.context
        self.pad = tokenizer.special_id("pad") if _has(tokenizer, "pad") else 0
        self._segmented = config.segments > 1
        self._encoder = config.mode == "encoder"
        if self._encoder:
            self._before, sep = _ids(tokenizer.special_id("cls")), _ids(tokenizer.special_id("sep"))
            self._after = self._end = sep
        else:
            self._before = _ids()
            self._end = _ids(tokenizer.special_id("end")) if _has(tokenizer, "end") else _ids()
            self._after = None  # a line break, which only two texts need

    def encode(self, text: str, place: str = "the text") -> np.ndarray:
        """A text's tokens, int32. Names of special tokens in it are text as any other.

        Raises:
            TinyformerError: the tokenizer cannot represent it.
            UsageError: it holds nothing that the tokenizer has a token for.
        """
        ids = self.tokenizer.encode(text, place)
        if not len(ids):
            raise UsageError(f"{place} has a text without any token; remove it, or write more")
        return ids

    def room(self, texts: int) -> int:
        """Tokens that one or two texts may have together.

        Raises:
            UsageError: there is none for each of them.
        """
        marks = len(self._before) + len(self._end) + (len(self._between()) if texts == 2 else 0)
        if self.context - marks < texts:
            raise UsageError(f"a context of {self.context} has no room for {texts} texts beside {marks} marks")
        return self.context - marks

    def layout(self, texts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
        """A row of one or two texts' tokens, and the segment of each token, int32; None where all are of segment 0.

        Args:
            texts: tokens, together no more than there is `room` for.
        """
        first = [self._before, texts[0], self._end if len(texts) == 1 else self._between()]
        second = [texts[1], self._end] if len(texts) == 2 else []
        ids = np.concatenate([*first, *second]).astype(np.int32)
        if not second or not self._segmented:
            return ids, None
        segments = np.zeros(len(ids), np.int32)
        segments[sum(map(len, first)) :] = 1
        return ids, segments

    def starts(self, texts: Sequence[np.ndarray]) -> tuple[int, ...]:
        """Where in the row each text begins."""
        first = len(self._before)
        return (first,) if len(texts) == 1 else (first, first + len(texts[0]) + len(self._between()))

    def fit(self, texts: Sequence[np.ndarray]) -> tuple[list[np.ndarray], int]:
        """The texts, shortened where there is too little room, and how many tokens were cut off."""
        lengths = [len(text) for text in texts]
        kept = shorten(lengths, self.room(len(texts)))
        return [text[:length] for text, length in zip(texts, kept)], sum(lengths) - sum(kept)

    def batch(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        """Rows as the arrays of a Batch: `inputs`, and where needed `mask` and `segments`."""
        inputs, mask = pad_rows([row.ids for row in rows], self.pad)
        found = {"inputs": inputs} if mask is None else {"inputs": inputs, "mask": mask}
        if any(row.segments is not None for row in rows):
            zeros = [np.zeros(len(row.ids), np.int32) if row.segments is None else row.segments for row in rows]
            found["segments"] = pad_rows(zeros, 0)[0]
        return found

    def _between(self) -> np.ndarray:
        if self._after is None:
            self._after = self.tokenizer.encode(BETWEEN, "the line break between two texts")
        return self._after


def shorten(lengths: Sequence[int], most: int) -> tuple[int, ...]:
    """How many tokens one or two texts keep to be at most `most` together: the longer one always loses the next."""
    if len(lengths) == 1:
        return (min(lengths[0], most),)
    first, second = lengths
    second = min(second, max(most - first, most // 2))  # what is left to it, or its half if the first takes more
    return min(first, most - second), second


def in_steps(batch: Batch, pad: int, context: int) -> Batch:
    """A batch whose rows are padded to an eighth of the context or a multiple of that, with a mask in any case.

    So a device that replays its work meets few shapes (`Objective.fixed`; `backends/cupy/graphs.py` keeps eight).

    Args:
        batch: of rows without decoder inputs.
        pad: id that fills a row.
        context: of the model.
    """
    rows, length = batch.inputs.shape
    step = -(-context // 8)
    more = min(-(-length // step) * step, context) - length
    found = batch.arrays
    found.setdefault("mask", np.ones((rows, length), np.bool_))
    if batch.targets.shape == (rows, length):  # one for each token
        found.setdefault("weights", np.ones((rows, length), np.float32))
    fill = {"inputs": pad, "mask": 0, "segments": 0, "targets": 0, "weights": 0}
    for name in fill.keys() & found.keys():
        if found[name].shape == (rows, length):
            found[name] = np.pad(found[name], ((0, 0), (0, more)), constant_values=fill[name])
    return dataclasses.replace(batch, **found)


def tell_cut(cut: int, texts: int, context: int) -> str | None:
    """A sentence on how many of some texts were cut to a context in tokens; None where none was."""
    if not cut:
        return None
    return f"{cut:,} of {texts:,} texts {'was' if cut == 1 else 'were'} cut to the context of {context:,} tokens"


def _has(tokenizer: Tokenizer, role: str) -> bool:
    return any(name in tokenizer.special_tokens for name in SPELLINGS[role])


def _ids(*ids: int) -> np.ndarray:
    return np.array(ids, np.int32)
