"""What a decoding loop asks of a model: next-token logits for rows, and rows that move on.

`State` is all that `decode.py` knows. `DecoderState` implements it for a decoder-only model, with a key/value
cache or without; an encoder-decoder implements the same two methods and is decoded by the same loop.
"""

from typing import Protocol

import numpy as np

from .. import backends
from ..errors import TinyformerError
from ..tensor import no_grad


class State(Protocol):
    """Several texts in progress, one per row."""

    def start(self) -> np.ndarray:
        """Next-token logits of the single first row, `1 v`, on the host."""
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
    """How many of the newest of `tokens` tokens a model with this context looks at.

    All of them while they fit. When the window is full, its oldest half is dropped and the rest is read
    again, which costs once per half context and not at every token. The length depends on the number of
    tokens alone, so that text given as a prompt and text just generated are treated alike.
    """
    if tokens <= context:
        return tokens
    dropped = (context + 1) // 2
    return context + 1 - dropped + (tokens - context - 1) % dropped


class DecoderState:
    """A decoder-only model that continues one prompt.

    Args:
        model: called as `model(ids, cache=...)`, giving logits `b t v`.
        prompt: token ids, at least one, 1-d.
        cached: keep keys and values of earlier positions instead of computing them again.
    """

    def __init__(self, model, prompt: np.ndarray, *, cached: bool = True):
        self.model = model
        self.context = model.config.context
        self.cached = cached
        self.window = np.asarray(prompt)[None, -window_length(len(prompt), self.context) :]
        self.cache = None

    def start(self) -> np.ndarray:
        return self._read_window()

    def advance(self, parents: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        window = np.concatenate([self.window[parents], tokens[:, None]], axis=1)
        length = window_length(window.shape[1], self.context)
        overflows = length < window.shape[1]
        unmoved = np.array_equal(parents, np.arange(len(self.window)))
        self.window = window[:, -length:]
        if not self.cached or overflows:
            return self._read_window()
        if not unmoved:
            self.cache.select(parents)
        return self._logits(self.window[:, -1:])

    def _read_window(self) -> np.ndarray:
        self.cache = self.model.new_cache(len(self.window)) if self.cached else None
        return self._logits(self.window)

    def _logits(self, ids: np.ndarray) -> np.ndarray:
        with no_grad():
            logits = self.model(ids, cache=self.cache, last_only=True).array[:, -1]
        return finite(backends.of(logits).to_host(logits))


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
