"""Our byte-pair encoding: from a text file to a tokenizer, and from both to a file of ids.

Read before: `contender.py`, `tokenizing.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tinyformer.text import encode_corpus, load_tokenizer, make_tokenizer

from .tokenizing import TEXT, VOCABULARY


def prepare(folder: Path, threads: int, form: str) -> Callable[[], int]:
    """A step that learns ("train") and returns the number of tokens there are, or of those it encodes ("encode")."""
    text, learned = folder / TEXT, folder / "ours.json"

    def train() -> int:
        tokenizer = make_tokenizer("bpe", [text], vocabulary_size=VOCABULARY)
        tokenizer.save(learned)
        return tokenizer.vocabulary_size

    def encode() -> int:  # read anew each time, so that it remembers no word
        return len(encode_corpus([text], load_tokenizer(learned), folder / "ours.tokens"))

    return train if form == "train" else encode
