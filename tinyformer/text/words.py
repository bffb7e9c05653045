"""Whole words as tokens: for looking at, not for training, since a text has more words than any vocabulary.

Figures in books show sentences as rows of words, and so can we.

Read before: `tokenizers.py`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ..errors import TinyformerError
from .tokenizers import Tokenizer

WORD = re.compile(r"\S+|\n")


class WordTokenizer(Tokenizer):
    """Each word, a run of characters that are not white space, is a token; so is a line break, where it is a known one.

    Decoding puts single spaces between, so it gives the text back only up to its white space.

    Args:
        words: the vocabulary, without repeats.
    """

    kind = "words"
    separator = b" "

    def __init__(self, words: Sequence[str], special_tokens: Sequence[str] = ()):
        super().__init__(len(words), special_tokens)
        self.words = list(words)
        self._ids = {word: i for i, word in enumerate(words)}

    def _encode_stream(self, chunks: Iterable[bytes], name: str) -> Iterator[np.ndarray]:
        words = [word for word in split_words(b"".join(chunks)) if word in self._ids or word != "\n"]
        strange = next((word for word in words if word not in self._ids), None)
        if strange is not None:
            raise TinyformerError(f"{name} has the word {strange!r}, which is not among the {len(self.words)} known")
        yield np.array([self._ids[word] for word in words], np.int32)

    def _locate(self, text: str, ids: np.ndarray) -> np.ndarray:
        found = [word.span() for word in WORD.finditer(text) if word[0] in self._ids or word[0] != "\n"]
        return np.array(found, np.int64).reshape(-1, 2)

    def _decode(self, ids: np.ndarray) -> bytes:
        return " ".join(map(self.words.__getitem__, ids.tolist())).encode()

    def _definition(self) -> dict:
        return {"words": self.words}


def split_words(text: bytes) -> list[str]:
    """The words of a text, and its line breaks, in order."""
    return WORD.findall(text.decode("utf-8", "replace"))
