"""Where an objective's rows come from: windows of a text, stretches of its documents, or pairs of lines.

A source numbers what rows can be made of, and makes batches of it in two ways. For training in a random order, which
is a function of (seed, step); for validation from the beginning to the end, the same each time. What is random in a
row comes from a generator of the row's own.

How an objective wants its text to lie in a token file is decided here, too (`split_text`, `encode_text`): as one stream
for causal models and for span corruption, as GPT and T5 read it; as `<cls> document <sep>` for encoders; and as sources
and targets for pairs.

Read before: `batches.py`, `parts.py`, `pairs.py`, `tinyformer/objectives/objective.py`.
Read next: `tinyformer/training/data.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..objectives import Batch, MaskedLM, NextSentence, Objective, Seq2Seq
from .batches import Shuffle, Windows
from .corpus import encode_corpus, split_corpus
from .pairs import Pairs, encode_pairs, split_pairs
from .parts import Parts
from .spans import Progress
from .token_file import TokenFile
from .tokenizers import Tokenizer

CORRUPTION, VALIDATION = 2, 3  # random streams: the second number after a seed; 0 is for parameters, 1 for dropout
DUPLICATES = 10  # ways in which a fixed masking hides tokens of the same stretch (BERT's create_pretraining_data.py)


def host_random(seed: int, *stream: int) -> np.random.Generator:
    """Random numbers on the host that are a function of these integers: for what an objective draws."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=stream)))


class Source(ABC):
    """A token file as batches of an objective.

    Args:
        objective: makes a batch of rows.
        tokens: the text.
        context: of the model, in tokens.
        seed: with a step's number, fixes its batch.
        fixed: whether what is random in a row depends on its place in the text and on the epoch, and repeats itself
            after `DUPLICATES` epochs; else it is drawn anew at each step.

    Attributes:
        row_tokens: tokens of the text that a row stands for, at most.
    """

    row_tokens: int

    def __init__(self, objective: Objective, tokens: TokenFile, context: int, seed: int, *, fixed: bool = False):
        self.objective, self.tokens, self.context, self.seed, self.fixed = objective, tokens, context, seed, fixed
        self.row_tokens = context

    def batch(self, step: int, rows: int) -> Batch:
        """The batch of a training step, counted from 1: a function of (seed, step), whatever came before."""
        epochs, items = self._draw(step - 1, rows)
        if self.fixed:
            streams = zip((epochs % DUPLICATES).tolist(), items.tolist())
        else:
            streams = ((step, row) for row in range(rows))
        return self._corrupted(items, [host_random(self.seed, CORRUPTION, *stream) for stream in streams])

    def in_order(self, rows: int, most_tokens: int | None = None) -> Iterator[Batch]:
        """The text in batches of at most `rows` rows, the same each time, whatever the number of rows.

        All of it if it has at most `most_tokens` tokens (or that is None); else about that many, in rows spread evenly
        over it.
        """
        whole, used = len(self), self.used(most_tokens)
        numbers = np.arange(used) * whole // max(used, 1)
        batches = [self._items(numbers[first : first + rows]) for first in range(0, used, rows)]
        if used == whole:
            batches += self._rest()
        for items in batches:
            yield self._corrupted(items, [host_random(self.seed, VALIDATION, item) for item in items.tolist()])

    def used(self, most_tokens: int | None) -> int:
        """How many rows `in_order` gives, but for a last one that is shorter."""
        return len(self) if most_tokens is None else min(len(self), max(1, most_tokens // self.row_tokens))

    def target_counts(self) -> np.ndarray:
        """How often each id occurs among what is to be predicted, before any corruption: int64, `v`."""
        return self.tokens.counts()

    @abstractmethod
    def __len__(self) -> int:
        """Rows of the whole text in order, but for a last one that is shorter."""

    @abstractmethod
    def _draw(self, step: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """The epochs and the items of a step, counted from 0."""

    @abstractmethod
    def _row(self, item: int, rng: np.random.Generator) -> Any:
        """What the objective makes a row of."""

    def _items(self, numbers: np.ndarray) -> np.ndarray:
        """The items of rows in order."""
        return numbers

    def _rest(self) -> list[np.ndarray]:
        """The item of a last, shorter row, which objectives that stack their rows want by itself."""
        return []

    def _corrupted(self, items: np.ndarray, rngs: list[np.random.Generator]) -> Batch:
        return self.objective.corrupt([self._row(item, rng) for item, rng in zip(items.tolist(), rngs)], rngs)


class Stream(Source):
    """Windows of a text that is one stream; an item is where a window begins."""

    def __init__(self, objective: Objective, tokens: TokenFile, context: int, seed: int, *, fixed: bool = False):
        super().__init__(objective, tokens, context, seed, fixed=fixed)
        self._size, self._overlap = objective.row_tokens(context), objective.overlap
        self.row_tokens = self._size - self._overlap
        self._order: Windows | None = None  # made when it is asked for: a text to score may be shorter than a window

    def __len__(self) -> int:
        return max(0, (len(self.tokens) - self._overlap) // self.row_tokens)

    def _draw(self, step: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        if self._order is None:
            phase = not self.fixed  # windows that lie elsewhere in each epoch cannot be masked alike
            self._order = Windows(len(self.tokens), self._size, self.seed, overlap=self._overlap, phase=phase)
        return self._order.items(step, rows)

    def _row(self, item: int, rng: np.random.Generator) -> np.ndarray:
        return self.tokens.read(item, min(self._size, len(self.tokens) - item))

    def _items(self, numbers: np.ndarray) -> np.ndarray:
        return numbers * self.row_tokens

    def _rest(self) -> list[np.ndarray]:
        start = len(self) * self.row_tokens
        return [np.array([start])] if len(self.tokens) - start > max(1, self._overlap) else []


class Documents(Source):
    """A stretch of a document, and one of another: what next-sentence prediction makes a pair of.

    Stretches overlap by half, as each is twice as long as what a row shows of it. There are two documents at least, as
    `split_text` and `encode_text` see to.
    """

    def __init__(self, objective: NextSentence, tokens: TokenFile, context: int, seed: int, *, fixed: bool = False):
        super().__init__(objective, tokens, context, seed, fixed=fixed)
        self._size = objective.row_tokens(context)
        parts = Parts(tokens, objective.sep)
        self._starts, self._stops = parts.starts + 1, parts.stops  # without <cls> and <sep>
        step = max(1, self._size // 2)
        self._step, self._ends = step, np.cumsum(-(-np.maximum(self._stops - self._starts, 1) // step))
        self._shuffle = Shuffle(len(self), seed)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _draw(self, step: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        return self._shuffle.items(step, rows)

    def _row(self, item: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        place = int(np.searchsorted(self._ends, item, side="right"))
        number = item - (int(self._ends[place - 1]) if place else 0)
        other = int(rng.integers(len(self._ends) - 1))
        other += other >= place
        start = int(rng.integers(max(1, self._length(other) - self._size + 1)))
        return self._stretch(place, number * self._step), self._stretch(other, start)

    def _length(self, place: int) -> int:
        return int(self._stops[place] - self._starts[place])

    def _stretch(self, place: int, start: int) -> np.ndarray:
        length = self._length(place)
        start = min(start, max(0, length - self._size))
        return self.tokens.read(int(self._starts[place]) + start, min(self._size, length - start))


class PairLines(Source):
    """Pairs of a source and a target, by their numbers."""

    def __init__(self, objective: Seq2Seq, tokens: TokenFile, context: int, seed: int, *, fixed: bool = False):
        super().__init__(objective, tokens, context, seed, fixed=fixed)
        self._pairs = Pairs(tokens, objective.end)
        self._shuffle = Shuffle(len(self._pairs), seed)

    def __len__(self) -> int:
        return len(self._pairs)

    def target_counts(self) -> np.ndarray:
        """How often each id occurs in the targets."""
        counts, closed = np.zeros(self.tokens.vocabulary_size, np.int64), 0
        for _, ids in self.tokens.stretches():
            ends = ids == self.objective.end
            before = closed + np.cumsum(ends) - ends
            counts += np.bincount(ids[before % 2 == 1], minlength=len(counts))
            closed += int(ends.sum())
        return counts

    def _draw(self, step: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        return self._shuffle.items(step, rows)

    def _row(self, item: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return self._pairs[item]


def open_source(objective: Objective, tokens: TokenFile, context: int, seed: int, *, fixed: bool = False) -> Source:
    """The source of an objective's rows in a token file that `split_text` or `encode_text` made for it."""
    kinds = ((NextSentence, Documents), (Seq2Seq, PairLines), (Objective, Stream))
    kind = next(kind for objectives, kind in kinds if isinstance(objective, objectives))
    return kind(objective, tokens, context, seed, fixed=fixed)


def split_text(
    objective: Objective,
    paths: Sequence[Path | str],
    tokenizer: Tokenizer,
    folder: Path | str,
    *,
    validation: float | Path | str,
    context: int,
    processes: int = 1,
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda message: None,
) -> tuple[TokenFile, TokenFile]:
    """Tokenise a corpus into `train.tokens` and `validation.tokens`, laid out for an objective.

    Args:
        objective: what will be trained.
        paths: the files: text, or for `Seq2Seq` lines of `source TAB target`.
        tokenizer: turns their bytes into ids.
        folder: an existing folder for the two token files.
        validation: a file of its own, or the fraction to take from the end.
        context: of the model.
        processes: that a long text may be shared out over; pairs are encoded by one.
        progress: called with bytes done, bytes in all, and what is being done.
        warn: told, in a sentence, of each file that is not UTF-8.

    Raises:
        UsageError: a file is missing, empty or too short for the context; a line is no pair, or too long; or there is
            one document only and next sentences need another.
        TinyformerError: a file cannot be read or encoded, or a token file cannot be written.
    """
    settings = {"validation": validation, "progress": progress, "warn": warn}
    if isinstance(objective, Seq2Seq):
        return split_pairs(paths, tokenizer, folder, most=context, **settings)
    needed = context if isinstance(objective, NextSentence) else objective.row_tokens(context)
    layout = {"context": context, "row_tokens": needed, "document": _document(objective), "processes": processes}
    train, held_out = split_corpus(paths, tokenizer, folder, **layout, **settings)
    own = [validation] if isinstance(validation, str | Path) else paths
    _check_documents(objective, train, paths, "to train on")
    _check_documents(objective, held_out, own, "to validate on")
    return train, held_out


def encode_text(
    objective: Objective,
    path: Path | str,
    tokenizer: Tokenizer,
    target: Path | str,
    *,
    context: int,
    progress: Progress | None = None,
) -> TokenFile:
    """Tokenise one file, laid out for an objective. Arguments and errors as for `split_text`; any length will do."""
    if isinstance(objective, Seq2Seq):
        return encode_pairs([path], tokenizer, target, most=context, progress=progress)
    tokens = encode_corpus([path], tokenizer, target, document=_document(objective), progress=progress)
    _check_documents(objective, tokens, [path], "to score")
    return tokens


def _check_documents(objective: Objective, tokens: TokenFile, paths: Sequence[Path | str], what: str) -> None:
    """Raise a UsageError that names the user's files where next-sentence prediction finds no second document."""
    if isinstance(objective, NextSentence) and (found := len(Parts(tokens, objective.sep))) < 2:
        other = "" if what == "to score" else ", or use --objective masked"
        raise UsageError(
            f"next-sentence prediction needs at least two documents, and {', '.join(map(str, paths))} has {found} "
            f"{what}; put blank lines between documents{other}"
        )


def _document(objective: Objective) -> tuple[int, int] | None:
    """The ids around each document; None where the text is one stream."""
    return (objective.cls, objective.sep) if isinstance(objective, MaskedLM) else None
