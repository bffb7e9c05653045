"""A small causal model and tokenizer, independent of the real ones, for tests of the decoding loop."""

from types import SimpleNamespace

import numpy as np

from tinyformer.errors import UsageError


class StandInCache:
    def __init__(self, batch):
        self.ids = np.zeros((batch, 0), dtype=np.int64)

    def select(self, rows):
        self.ids = self.ids[rows]


class StandInModel:
    """Logits that depend on every token of the window and on its length, so that a wrong window shows."""

    def __init__(self, vocabulary=5, context=8, seed=0, scale=2.0):
        self.config = SimpleNamespace(mode="decoder", vocabulary=vocabulary, context=context)
        rng = np.random.default_rng(seed)
        self.embedding = rng.normal(size=(vocabulary, 16))
        self.head = rng.normal(size=(16, vocabulary)) * scale
        self.positions_read = 0

    def new_cache(self, batch):
        return StandInCache(batch)

    def __call__(self, ids, *, cache=None, last_only=False):
        old = 0 if cache is None else cache.ids.shape[1]
        if cache is not None:
            assert len(cache.ids) == len(ids)
            ids = cache.ids = np.concatenate([cache.ids, ids], axis=1)
        assert ids.shape[1] <= self.config.context
        self.positions_read += ids.shape[1] - old
        state, logits = np.zeros((len(ids), 16)), []
        for position in range(ids.shape[1]):
            state = np.tanh(1.3 * state[:, ::-1] + self.embedding[ids[:, position]] + 0.01 * position)
            logits.append(state @ self.head)
        return SimpleNamespace(array=np.stack(logits, axis=1)[:, old:])

    def log_probability(self, prompt, tokens):
        """Of these tokens after the prompt, where all fit into the context."""
        ids = np.array([[*prompt, *tokens]])
        logits = self(ids).array[0, len(prompt) - 1 : -1]
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return log_p[np.arange(len(tokens)), tokens].sum()


class ByteTokenizer:
    """Token i is byte i, or a letter for small vocabularies."""

    def __init__(self, vocabulary=5, first=97):
        self.vocabulary_size = vocabulary
        self.first = first

    def encode(self, text, name="the text"):
        return np.array([byte - self.first for byte in text if 0 <= byte - self.first < self.vocabulary_size])

    def special_id(self, role):
        raise UsageError(f"no token for {role}")

    def decode(self, ids):
        return bytes(int(token) + self.first for token in ids)
