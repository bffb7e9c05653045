"""Which words of a sentence are names, and of what: a tag for each word (Devlin 2019, §5.3).

Words are joined with single spaces, as text is written, and encoded together. A word's tag is asked of its first
sub-word, the first token that has one of its characters; what is said of its other tokens counts nowhere. A word that
the tokenizer leaves nothing of (BERT's drops control characters) is `O`.

A sentence longer than the context is read in windows of whole words that overlap by half, and each word is asked in
the one that shows most around it. So no word is cut off; only one that alone is longer than the context loses its end.

What a model says need not be BIO. An `I-TYPE` that follows no tag of its type is written `B-TYPE`, which is how
conlleval reads it.

Read before: `conll.py`, `windows.py`. Read next: `answer.py`.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import nn
from ..errors import UsageError
from ..generation.filters import log_softmax
from ..models import ModelConfig
from ..objectives import Batch
from ..tensor import no_grad
from ..text import Tokenizer
from .conll import later, stream_tagged
from .encoding import Framing
from .examples import Columns, Example
from .heads import TokenHead
from .lines import Source
from .metrics import entities
from .task import Row, Task, file_of
from .windows import owners, windows


class Tag(Task):
    """A tag for each word. `labels` are all tags: `O`, and `B-` and `I-` of each type."""

    name, modes, best = "tag", ("encoder",), "f1"
    form = "WORD TAG, a blank line between sentences"
    unreached = ("body.head.", "body.pooler.", "body.next_sentence.")

    def __init__(
        self, tokenizer: Tokenizer, config: ModelConfig, *, labels: Sequence[str] = (), prefix: str = ""
    ) -> None:
        super().__init__(tokenizer, config, labels=labels, prefix=prefix)
        self.framing = Framing(tokenizer, config)
        self._numbers = {tag: number for number, tag in enumerate(self.labels)}

    @classmethod
    def stream(
        cls,
        source: Source,
        columns: Columns = Columns(),
        *,
        labelled: bool = True,
        warn: Callable[[str], None] = lambda message: None,
    ) -> Iterator[Example]:
        """The sentences of a file; see `Task.stream`, and `conll.py` for its formats."""
        return stream_tagged(source, columns, labelled=labelled, warn=warn)

    @classmethod
    def labels_of(cls, examples: Sequence[Example]) -> tuple[str, ...]:
        """`O`, and for each type of entity there is, both tags, sorted.

        Raises:
            UsageError: there is no entity, or one is the only one of its type.
        """
        counts, places = collections.Counter(), {}
        for example in examples:
            for kind, first, _ in entities.entities(example.label):
                counts[kind] += 1
                places[kind] = later(example.place, first)
        if not counts:
            raise UsageError(
                f"{file_of(examples)} has no entity, every tag is O, so there is nothing to learn; is the tag the last "
                "column?"
            )
        for kind, count in counts.items():
            if count == 1:
                raise UsageError(
                    f"{places[kind]}: the only entity of type {kind!r} is here, too little to learn from; correct it, "
                    "add others, or tag it O"
                )
        tags = (f"{begin}-{kind}" if kind else begin for begin in "BI" for kind in counts)
        return tuple(sorted({entities.OUTSIDE, *tags}))

    @classmethod
    def teaches(cls, example: Example) -> bool:
        """Whether a sentence has an entity."""
        return any(tag != entities.OUTSIDE for tag in example.label)

    @classmethod
    def balance(cls, examples: Sequence[Example]) -> dict[str, int]:
        """How many entities there are of each type, the most common first; "entity" where none is named."""
        found = (kind or "entity" for example in examples for kind, _, _ in entities.entities(example.label))
        return dict(collections.Counter(found).most_common())

    @classmethod
    def summary(cls, examples: Sequence[Example]) -> dict[str, int]:
        """How many `words` there are, and how many of them are `outside` of entities."""
        tags = [tag for example in examples for tag in example.label]
        return {"words": len(tags), "outside": tags.count(entities.OUTSIDE)}

    @classmethod
    def guess(cls, examples: Sequence[Example]) -> tuple[str, Callable[[Example], tuple[str, ...]]]:
        """That every word is outside."""
        return entities.OUTSIDE, lambda example: (entities.OUTSIDE,) * len(example.texts)

    def check_examples(self, examples: Sequence[Example]) -> None:
        """Raise a UsageError where a word has a tag that is not among those of the training; names both."""
        for example in examples:
            if example.label is not None:
                self._targets(example)

    def rows(self, example: Example) -> list[Row]:
        """A sentence, encoded: several rows where it is longer than the context.

        The `origin` of each has the numbers of the words that are asked there, and the places of their first sub-words.

        Raises:
            UsageError: a tag is unknown.
            TinyformerError: the tokenizer cannot represent it.
        """
        ids, first = self.located(example)
        targets, room = self._targets(example), self.framing.room(1)
        asked = np.flatnonzero(first < len(ids))  # words that something is left of
        # The tokens of a word go on to the next one's first; what is before all belongs to the first one.
        bounds = np.array([0, *first[asked][1:], len(ids)]) if len(asked) else np.array([0, len(ids)])
        found = windows(np.diff(bounds).tolist(), room, max(1, room // 2))
        whose, rows = owners(found, len(bounds) - 1), []
        for number, (start, stop) in enumerate(found):
            begin, end = bounds[start], bounds[stop]
            tokens = ids[begin : min(end, begin + room)]
            row, segments = self.framing.layout([tokens])
            words = asked[(whose == number)[: len(asked)]]
            places = first[words] - begin + self.framing.starts([tokens])[0]
            target = None
            if targets is not None:
                target = np.full(len(row), -1, np.int32)
                target[places] = targets[words]
            rows.append(Row(row, segments, target, int(end - begin) - len(tokens), (words, places)))
        return rows

    def located(self, example: Example) -> tuple[np.ndarray, np.ndarray]:
        """A sentence's tokens, and the place of each word's first sub-word; their number where it has none."""
        text = " ".join(example.texts)
        ids, places = self.tokenizer.encode_located(text, example.place or "the sentence")
        owner = np.full(len(text), -1)  # of each character, the word
        start = 0
        for number, word in enumerate(example.texts):
            owner[start : start + len(word)] = number
            start += len(word) + 1
        first, missing = np.full(len(example.texts), len(ids)), set(range(len(example.texts)))
        for token, (begin, end) in enumerate(places.tolist()):
            word = next((word for word in owner[begin:end].tolist() if word in missing), None)
            if word is not None:
                missing.remove(word)
                first[word] = token
        return ids, first

    def _targets(self, example: Example) -> np.ndarray | None:
        """The number of each word's tag."""
        if example.label is None:
            return None
        for number, tag in enumerate(example.label):
            if tag not in self._numbers:
                known = ", ".join(self.labels)
                raise UsageError(
                    f"{later(example.place, number) or 'a sentence'}: the tag {tag!r} of the word "
                    f"{example.texts[number]!r} is none of those that were trained on ({known}); correct it"
                )
        return np.array([self._numbers[tag] for tag in example.label], np.int32)

    def corrupt(self, rows: Sequence[Row], rngs: Sequence[Any] = ()) -> Batch:
        """A batch whose targets are tags; the first sub-word of each word that is asked in a row weighs 1."""
        given = self.framing.batch(rows)
        targets, weights = np.zeros_like(given["inputs"]), np.zeros(given["inputs"].shape, np.float32)
        for number, row in enumerate(rows):
            _, places = row.origin
            weights[number, places] = 1
            if row.target is not None:
                targets[number, places] = row.target[places]
        return Batch(**given, targets=targets, weights=weights)

    def head(self, init: nn.Initializer) -> nn.Module:
        """Dropout and a linear map of each token."""
        return TokenHead(self.config, len(self.labels), init)

    @no_grad()
    def outputs(self, model: Any, batch: Batch) -> list[np.ndarray]:
        """For each row, the probability of each tag, float64, for each word that is asked there: `n tags`."""
        logits = self.predict(model, batch).logits
        shares = np.exp(log_softmax(logits.backend.to_host(logits.array)))
        return [row[weights > 0] for row, weights in zip(shares, batch.weights)]

    def answer(self, example: Example, outputs: Sequence[np.ndarray]) -> tuple[str, ...]:
        """The most probable tag of each word, as BIO."""
        return self._tags(example, outputs)[0]

    def _tags(self, example: Example, outputs: Sequence[np.ndarray]) -> tuple[tuple[str, ...], np.ndarray]:
        """The tags, and the probability of each."""
        ids, first = self.located(example)
        asked = np.flatnonzero(first < len(ids))
        tags, shares = [entities.OUTSIDE] * len(example.texts), np.ones(len(example.texts))
        for word, chances in zip(asked.tolist(), np.concatenate(outputs), strict=True):
            tags[word], shares[word] = self.labels[int(chances.argmax())], chances.max()
        for _, start, _ in entities.entities(tags):  # after this, they are BIO, and the entities are the same
            tags[start] = "B" + tags[start][1:]
        return tuple(tags), shares

    def measure(self, examples: Sequence[Example], answers: Sequence[Sequence[str]]) -> dict[str, float]:
        """`precision`, `recall` and `f1` of whole entities; `accuracy` of the tags."""
        return entities.measure([example.label for example in examples], answers)

    def describe(self, example: Example, outputs: Sequence[np.ndarray]) -> dict[str, Any]:
        """`words` and `tags`, and the `entities`: type, text, first word, the one behind the last, and probability.

        That of an entity is the least of its tags' probabilities.
        """
        tags, shares = self._tags(example, outputs)
        found = [
            {
                "type": kind,
                "text": " ".join(example.texts[start:stop]),
                "start": start,
                "stop": stop,
                "probability": round(float(shares[start:stop].min()), 6),
            }
            for kind, start, stop in entities.entities(tags)
        ]
        return {"words": list(example.texts), "tags": list(tags), "entities": found}
