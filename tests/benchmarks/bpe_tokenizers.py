"""Hugging Face's `tokenizers`: byte-level BPE, given many lines at once, which it shares out over all cores.

Read before: `contender.py`, `tokenizing.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tokenizers

from .tokenizing import TEXT, VOCABULARY


def prepare(folder: Path, threads: int, form: str) -> Callable[[], int]:
    """A step that learns ("train") and returns the number of tokens there are, or of those it encodes ("encode")."""
    text, learned = folder / TEXT, folder / "theirs.json"

    def train() -> int:
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False, min_frequency=2
        )
        tokenizer.train([str(text)], trainer)
        tokenizer.save(str(learned))
        return tokenizer.get_vocab_size()

    def encode() -> int:  # only counted: handing the ids over to Python would take longer than finding them
        tokenizer = tokenizers.Tokenizer.from_file(str(learned))
        with text.open(encoding="utf-8", newline="") as lines:
            return sum(map(len, tokenizer.encode_batch_fast(list(lines))))

    return train if form == "train" else encode
