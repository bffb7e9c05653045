"""What a decoding loop asks of a model: next-token logits for rows, and rows that move on.

`State` is all that `decode.py` knows. `DecoderState` continues a prompt, `EncoderDecoderState` answers a source, or
several; both read a token once with a key/value cache, or all tokens again at each step without.

Read before: `tinyformer/models/decoder.py`, `encoder_decoder.py`. Read next: `strategies.py`.
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np

from .. import backends
from ..analysis.machine import usable_cores
from ..errors import TinyformerError
from ..tensor import Tensor, no_grad


def _all_cores() -> AbstractContextManager[None]:
    return backends.get("numpy").sharing(usable_cores())


class State(Protocol):
    """Several texts in progress, one per row."""

    def start(self) -> np.ndarray:
        """Next-token logits of the first rows, `b v`, on the host: a single one, unless there are several sources."""
        ...

    def advance(self, parents: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Replace the rows: new row i is old row `parents[i]` followed by `tokens[i]`.

        Args:
            parents: `b`; a row may go on several times, in any order, or not at all.
            tokens: `b`.

        Returns:
            Next-token logits of the new rows, `b v`, on the host.
        """
        ...


def window_length(tokens: int, context: int) -> int:
    """How many of the newest of `tokens` tokens a decoder with this context looks at.

    All of them while they fit. When the window is full, its oldest half is dropped and the rest is read
    again, which costs once per half context and not at every token. The length depends on the number of
    tokens alone, so that text given as a prompt and text just generated are treated alike.
    """
    if tokens <= context:
        return tokens
    dropped = (context + 1) // 2
    return context + 1 - dropped + (tokens - context - 1) % dropped


class _ModelState(ABC):
    """Rows of tokens that a model reads; final classes say how, and what happens when the context is full."""

    def __init__(self, model, first: np.ndarray, *, cached: bool, vocabulary: int | None):
        self.model = model
        self.context = model.config.context
        self.cached = cached
        self.vocabulary = vocabulary
        first = np.atleast_2d(first)
        self.window = first[:, -self._length(first.shape[1]) :]
        self.cache = None

    def start(self) -> np.ndarray:
        return self._read_window()

    def advance(self, parents: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        window = np.concatenate([self.window[parents], tokens[:, None]], axis=1)
        length = self._length(window.shape[1])
        overflows = length < window.shape[1]
        unmoved = np.array_equal(parents, np.arange(len(self.window)))
        self.window = window[:, -length:]
        if not self.cached or overflows:
            return self._read_window()
        if not unmoved:
            self.cache.select(parents)
        return self._read(self.window[:, -1:])

    def _read_window(self) -> np.ndarray:
        self.cache = self._new_cache(len(self.window)) if self.cached else None
        return self._read(self.window)

    def _read(self, ids: np.ndarray) -> np.ndarray:
        with no_grad(), _all_cores():
            logits = self._logits(ids).array[:, -1, : self.vocabulary]
        return finite(backends.of(logits).to_host(logits))

    @abstractmethod
    def _length(self, tokens: int) -> int:
        """How many of the newest of `tokens` tokens are looked at."""

    @abstractmethod
    def _new_cache(self, rows: int):
        """An empty key/value cache."""

    @abstractmethod
    def _logits(self, ids: np.ndarray) -> Tensor:
        """Of what follows the ids `b t` and, with a cache, all before them: `b 1 v`."""


class DecoderState(_ModelState):
    """A decoder that continues one prompt, as far as one likes.

    Args:
        model: called as `model(ids, cache=..., last_only=True)`, giving logits.
        prompt: token ids, at least one, 1-d.
        cached: keep keys and values of earlier positions instead of computing them again.
        vocabulary: how many ids have a meaning, where the model has room for more.
    """

    def __init__(self, model, prompt: np.ndarray, *, cached: bool = True, vocabulary: int | None = None):
        super().__init__(model, prompt, cached=cached, vocabulary=vocabulary)

    def _length(self, tokens: int) -> int:
        return window_length(tokens, self.context)

    def _new_cache(self, rows: int):
        return self.model.new_cache(rows)

    def _logits(self, ids: np.ndarray) -> Tensor:
        return self.model(ids, cache=self.cache, last_only=True)


class EncoderDecoderState(_ModelState):
    """An encoder-decoder that answers a source, or several, with targets of at most the context's length.

    A source is encoded once, and with the cache also the keys and values of it that all layers look at. Those of a
    single one have one row, which serves all rows of the target; several are answered by a row each, and go with it.

    Args:
        model: an encoder-decoder.
        source: token ids, at least one, 1-d, as the encoder reads them; or those of several sources, `b s`.
        start: the token that stands before a target.
        mask: True where a token of the sources is real, `b s`; None where all are.
        cached: keep keys and values of earlier positions instead of computing them again.
        vocabulary: how many ids have a meaning, where the model has room for more.
    """

    def __init__(
        self,
        model,
        source: np.ndarray,
        start: int,
        *,
        mask: np.ndarray | None = None,
        cached: bool = True,
        vocabulary: int | None = None,
    ):
        self.source, self.mask, self.memory = np.atleast_2d(source), mask, None
        super().__init__(model, np.full((len(self.source), 1), start), cached=cached, vocabulary=vocabulary)

    def start(self) -> np.ndarray:
        with no_grad(), _all_cores():
            self.memory = self.model.encode(self.source, mask=self.mask)
        return super().start()

    def advance(self, parents: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        if len(self.source) > 1 and not np.array_equal(parents, np.arange(len(self.source))):
            self.source = self.source[parents]
            self.mask = None if self.mask is None else self.mask[parents]
            if not self.cached:  # a cache has moved what it has of them
                xp = self.memory.backend
                self.memory = Tensor(xp.take(self.memory.array, xp.from_host(parents), axis=0))
        return super().advance(parents, tokens)

    def _length(self, tokens: int) -> int:
        if tokens > self.context:  # to forget its beginning, as a decoder does, would make another target of it
            raise ValueError(f"a target has at most {self.context} tokens, the model's context")
        return tokens

    def _new_cache(self, rows: int):
        return self.model.new_cache(rows, self.memory)

    def _logits(self, ids: np.ndarray) -> Tensor:
        return self.model.decode(ids, self.memory, mask=self.mask, cache=self.cache, last_only=True)


def finite(logits: np.ndarray) -> np.ndarray:
    """The logits as they are.

    Raises:
        TinyformerError: one of them is not a finite number.
    """
    if not np.isfinite(logits).all():
        raise TinyformerError(
            "the model's output is not finite: its weights are damaged or diverged, use an earlier checkpoint"
        )
    return logits
