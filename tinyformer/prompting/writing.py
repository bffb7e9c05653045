"""Answers that a model writes itself, where there are no candidates to choose from.

Read before: `candidates.py`, `tinyformer/generation/decode.py`. Read next: `evaluation.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..generation import Options, generate_texts
from .candidates import Answer, encoded
from .template import Template

_SENTENCE = re.compile(r".*?[.!?]+[\"')\]]*(?=\s|$)", re.DOTALL)
TLDR_SENTENCES = 3


@dataclass(frozen=True)
class Begun:
    """A prompt as ids, 1-d, and how many tokens a model has to read until the answer is complete."""

    prompt: np.ndarray
    length: int


class Writer:
    """Writes answers until a stop text.

    Args:
        model: a decoder.
        tokenizer: its own.
        options: how to choose tokens; one text each.
        sentences: of what was written, keep so many.
    """

    def __init__(self, model, tokenizer, options: Options, *, sentences: int | None = None) -> None:
        self.model, self.tokenizer, self.sentences = model, tokenizer, sentences
        self.options = replace(options, samples=1)

    @property
    def follows(self) -> str:
        """What comes after a prompt, in words."""
        stops = " or ".join(repr(text.decode("utf-8", "replace")) for text in self.options.stop)
        return f"up to {self.options.tokens} tokens are written" + f", until {stops}" * bool(stops)

    def prepare(self, prompt: str, place: str = "the prompt") -> Begun:
        """A prompt as the model reads it; `place` is what an error message calls it.

        Raises:
            TinyformerError: it cannot be encoded.
        """
        ids = encoded(self.tokenizer, prompt, place)
        return Begun(ids, len(ids) + self.options.tokens - 1)

    def answers(self, begun: Sequence[Begun], done: Callable[[float], None] = lambda share: None) -> list[Answer]:
        """What the model writes after each prompt, without white space around it.

        Raises:
            TinyformerError: the model's output is not finite.
        """
        found = []
        for number, each in enumerate(begun, 1):
            (text,) = generate_texts(self.model, self.tokenizer, each.prompt, self.options)
            written = text.decode("utf-8", "replace")
            if self.sentences is not None:
                written = first_sentences(written, self.sentences)
            found.append(Answer(written.strip(), {}))
            done(number / len(begun))
        return found


def options_for(template: Template) -> Options:
    """How answers are written unless one says otherwise: the likeliest tokens, until the example has ended."""
    return Options(tokens=32, temperature=0.0, stop=((template.behind or "\n").encode("utf-8", "surrogateescape"),))


def tldr_options() -> Options:
    """How GPT-2 wrote summaries: 100 tokens, each one of the 2 likeliest (Radford 2019, §3.6)."""
    return Options(tokens=100, temperature=1.0, top_k=2)


def first_sentences(text: str, count: int) -> str:
    """The first sentences of a text, up to a mark that ends one before white space; all of it where there are fewer."""
    stop = 0
    for _ in range(count):
        found = _SENTENCE.match(text, stop)
        if found is None:
            return text
        stop = found.end()
    return text[:stop]
