"""Which of some answers a model prefers: their likelihoods, made comparable (Brown 2020, §2.4).

A long answer is less likely than a short one only because it is long. So GPT-3 divides the log-likelihood by the number
of tokens; and where an answer is likely after anything, it takes log P(answer | prompt) - log P(answer | "Answer:").

Read before: `likelihood.py`. Read next: `evaluation.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from ..errors import UsageError
from ..generation.prompts import encode_prompt
from .likelihood import Question, log_likelihoods
from .template import Template

NORMALISATIONS = {
    "token": "the mean of its tokens' log-likelihoods, as GPT-3",
    "byte": "the sum by the label's bytes, alike for every tokenizer",
    "sum": "the sum, a longer label being less likely",
    "unconditional": "the sum, less that of the label after the template's cue alone",
}
_BEGINS_A_PIECE = re.compile(r" \S")  # whatever stands before it, byte pairs are cut there


@dataclass(frozen=True)
class Answer:
    """What a model answers.

    Attributes:
        text: the candidate, or what was written.
        scores: of each candidate, in nats; empty for what was written.
    """

    text: str
    scores: dict[str, float]


class Candidates:
    """Answers to choose from, for one model and template.

    Args:
        model: a decoder.
        tokenizer: its own.
        template: says what stands before an answer.
        labels: the answers.
        normalise: one of NORMALISATIONS.

    Raises:
        UsageError: there are fewer than two labels, or one is there twice.
    """

    def __init__(
        self, model, tokenizer, template: Template, labels: Sequence[str], *, normalise: str = "token"
    ) -> None:
        if len(labels) < 2 or len(set(labels)) < len(labels):
            raise UsageError(
                f"there is nothing to choose: the candidates are {', '.join(map(repr, labels)) or 'none'}; "
                "give two different ones or more"
            )
        self.model, self.tokenizer, self.template, self.normalise = model, tokenizer, template, normalise
        self.labels = tuple(labels)
        self._encoded = cache(self._encode)
        self._plain: np.ndarray | None = None  # of the answers after the cue alone

    @property
    def follows(self) -> str:
        """What comes after a prompt, in words."""
        return f"one of {', '.join(repr(self.template.lead + label) for label in self.labels)}"

    def prepare(self, prompt: str, place: str = "the prompt") -> Question:
        """A prompt and all answers to it, as the model reads them.

        Ids are those of the whole text, as it would be encoded for training. A token that begins in the prompt and ends
        in an answer counts to the answer.

        Args:
            prompt: ends before the answer.
            place: what an error message calls it.

        Raises:
            TinyformerError: it cannot be encoded.
        """
        answers = [self.template.lead + label for label in self.labels]
        if all(map(self._separate, answers)):
            return Question(encoded(self.tokenizer, prompt, place), [*map(self._encoded, answers)])
        whole = [self.tokenizer.encode_located(prompt + answer, place) for answer in answers]
        rows = [np.asarray(ids, dtype=np.int64) for ids, _ in whole]
        own = min(int((places[:, 1] <= len(prompt)).sum()) for _, places in whole)
        while any((row[:own] != rows[0][:own]).any() for row in rows):  # a tokenizer that sees the answer from afar
            own -= 1
        start = rows[0][:own] if own else encoded(self.tokenizer, "", place)
        return Question(start, [row[own:] for row in rows])

    def answers(
        self, questions: Sequence[Question], done: Callable[[float], None] = lambda share: None
    ) -> list[Answer]:
        """The best answer to each question.

        Raises:
            TinyformerError: the model's output is not finite.
        """
        scores = self.scores(questions, done)
        return [Answer(self.labels[row.argmax()], dict(zip(self.labels, row.tolist()))) for row in scores]

    def scores(self, questions: Sequence[Question], done: Callable[[float], None] = lambda share: None) -> np.ndarray:
        """How good each answer to each question is, in nats, normalised: `n` questions by `c` candidates, float64.

        Raises:
            TinyformerError: the model's output is not finite.
        """
        found = self._log_likelihoods(questions, done)
        if self.normalise == "token":
            return found / np.array([[*map(len, question.answers)] for question in questions])
        if self.normalise == "byte":
            return found / np.array([len(label.encode("utf-8", "surrogateescape")) for label in self.labels])
        if self.normalise == "unconditional":
            if self._plain is None:
                (self._plain,) = self._log_likelihoods([self.prepare(self.template.cue)])
            return found - self._plain
        return found

    def _log_likelihoods(
        self, questions: Sequence[Question], done: Callable[[float], None] = lambda share: None
    ) -> np.ndarray:
        size = self.tokenizer.vocabulary_size
        return np.stack(log_likelihoods(self.model, questions, vocabulary=size, done=done))

    def _encode(self, answer: str) -> np.ndarray:
        ids = np.asarray(self.tokenizer.encode(answer, f"the candidate {answer.strip()!r}"), dtype=np.int64)
        if not len(ids):
            raise UsageError(f"the candidate {answer.strip()!r} has no token; leave it out, or call it by another name")
        return ids

    def _separate(self, answer: str) -> bool:
        """Whether the ids of a prompt and this answer are those of one and then those of the other, for any prompt."""
        kind = self.tokenizer.kind
        return kind in ("bytes", "chars") or (kind == "bpe" and bool(_BEGINS_A_PIECE.match(answer)))


def encoded(tokenizer, prompt: str, place: str) -> np.ndarray:
    """A prompt's ids, at least one; an empty one begins a new text (`generation.prompts.encode_prompt`)."""
    ids = np.asarray(tokenizer.encode(prompt, place), dtype=np.int64)
    return ids if len(ids) else encode_prompt(tokenizer, b"")
