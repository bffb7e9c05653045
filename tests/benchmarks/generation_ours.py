"""Our generation, as `tinyformer generate` has it.

Read before: `contender.py`, `generation.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

import tinyformer
from tinyformer.errors import UsageError
from tinyformer.generation import Options, generate

from .generation import PROMPT, TOKENS


class Ids:
    """A tokenizer that keeps the ids it is given, and shows a dot for each; no text is needed here."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary_size = vocabulary
        self.seen: list[int] = []

    def special_id(self, role: str) -> int:
        raise UsageError(f"no token for {role}")

    def decode(self, ids: list[int]) -> bytes:
        self.seen += map(int, ids)
        return b"." * len(ids)


def prepare(folder: Path, threads: int, form: str) -> Callable[[], list[int]]:
    """A step that writes the tokens and returns them."""
    model = tinyformer.load(folder)
    options = Options(tokens=TOKENS, temperature=0.0)

    def step() -> list[int]:
        tokenizer = Ids(model.config.vocabulary)
        for _ in generate(model, tokenizer, np.array(PROMPT), options):
            pass
        return tokenizer.seen

    return step
