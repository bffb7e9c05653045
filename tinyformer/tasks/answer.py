"""The stretch of a text that answers a question: SQuAD (Rajpurkar 2016), as BERT does it (Devlin 2019, §4.2 and §4.3).

A row is `<cls> question <sep> context <sep>`. Two scores of each token say how likely the answer begins there, and how
likely it ends there; the answer is the stretch whose two scores have the largest sum, of those that are at most 30
tokens long (150 bytes or characters, where tokens are those). If some questions of the training have no answer, no
answer is one at `<cls>`, and it is given where that one's score is above the best stretch's.

A question keeps at most half of the room that a row has; what is beyond is cut off and counted. A context that is too
long is read in windows that overlap, each 128 tokens further on, or half a window if that is less. In training, a
window that does not hold the whole answer has it at `<cls>`. Of the answer that the windows give together, each token
may be the first one only in the window that shows most around it, and the score of no answer is its least of all
windows; both as in BERT's run_squad.py.

Read before: `squad.py`, `windows.py`. Read next: `text2text.py`.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import nn, ops
from ..backends import Generator
from ..errors import UsageError
from ..generation.filters import log_softmax
from ..models import ModelConfig
from ..objectives import Batch
from ..objectives.objective import Prediction
from ..tensor import Tensor, no_grad
from ..text import Tokenizer
from .encoding import Framing
from .examples import Columns, Example
from .heads import TokenHead
from .lines import Source
from .metrics import answers as metric
from .squad import stream_questions
from .task import Row, Task, file_of
from .windows import owners, windows

NONE = "no answer"  # the label that a run has whose questions may have none
STRIDE = 128  # tokens from window to window, as in run_squad.py
LONGEST, LONGEST_CHARACTERS = 30, 150  # an answer, in tokens; the same in tokens that are bytes or characters
HIDDEN = -1e9  # score of padding, so that a row's loss does not depend on the rows beside it


@dataclasses.dataclass(frozen=True)
class Origin:
    """What of the context a row shows.

    Attributes:
        first: place in the row of the window's first token.
        places: of each of the window's tokens, where in the context it begins and ends, `n 2`.
        own: of each, whether the window is the one that shows most around it.
    """

    first: int
    places: np.ndarray
    own: np.ndarray


@dataclasses.dataclass(frozen=True)
class Found:
    """An answer: a text of the context.

    Attributes:
        text: of the answer; empty for none.
        start: its first character in the context.
        probability: product of its two probabilities, within the window; likewise of no answer.
        margin: how much the best stretch's score, whether it is given or not, is above that of no answer.
    """

    text: str
    start: int
    probability: float
    margin: float


class Answer(Task):
    """Where in a text the answer to a question stands. `labels` has `NONE` where there may be none.

    Args:
        tokenizer: of the run.
        config: of the pretrained model.
        labels: as of `Task`.
        stride: tokens from window to window; None for the usual.
        longest: tokens of an answer; None for the usual.
        threshold: no answer is given where its score exceeds that of the best stretch by more than this.

    Raises:
        UsageError: the stride or the length is no positive number.
    """

    name, modes, best = "answer", ("encoder",), "f1"
    form = "SQuAD's JSON"
    unreached = ("body.head.", "body.pooler.", "body.next_sentence.")

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: ModelConfig,
        *,
        labels: Sequence[str] = (),
        prefix: str = "",
        stride: int | None = None,
        longest: int | None = None,
        threshold: float = 0.0,
    ) -> None:
        super().__init__(tokenizer, config, labels=labels, prefix=prefix)
        for name, value in (("stride", stride), ("longest", longest)):
            if value is not None and value < 1:
                raise UsageError(f"the {name} must be at least 1 token, and is {value}")
        self.framing = Framing(tokenizer, config)
        usual = LONGEST_CHARACTERS if tokenizer.kind in ("bytes", "chars") else LONGEST
        self.stride, self.threshold = stride, threshold
        self.longest = usual if longest is None else longest

    @classmethod
    def stream(
        cls,
        source: Source,
        columns: Columns = Columns(),
        *,
        labelled: bool = True,
        warn: Callable[[str], None] = lambda message: None,
    ) -> Iterator[Example]:
        """The questions of a file; see `Task.stream`, and `squad.py` for its formats."""
        return stream_questions(source, columns, labelled=labelled, warn=warn)

    @classmethod
    def labels_of(cls, examples: Sequence[Example]) -> tuple[str, ...]:
        """`NONE` if some questions have no answer.

        Raises:
            UsageError: none has one.
        """
        if not any(example.label for example in examples):
            raise UsageError(
                f"no question of {file_of(examples)} has an answer, so there is nothing to learn; add questions to it "
                "that have one"
            )
        return () if all(example.label for example in examples) else (NONE,)

    @classmethod
    def teaches(cls, example: Example) -> bool:
        """Whether a question has an answer."""
        return bool(example.label)

    @classmethod
    def summary(cls, examples: Sequence[Example]) -> dict[str, float]:
        """How many `questions` there are, how many `without` an answer, and the `median` answer's characters."""
        sizes = [len(example.label[0][0]) for example in examples if example.label]
        return {"questions": len(examples), "without": len(examples) - len(sizes), "median": statistics.median(sizes)}

    @classmethod
    def guess(cls, examples: Sequence[Example]) -> tuple[str, Callable[[Example], tuple[tuple[str, int], ...]]]:
        """No answer, or the whole text where every question has one."""
        if all(example.label for example in examples):
            return "the whole text", lambda example: ((example.texts[1], 0),)
        return NONE, lambda example: ()

    def check_examples(self, examples: Sequence[Example]) -> None:
        """Raise a UsageError where a question has no answer while all had one in the training."""
        for example in examples:
            if example.label == () and NONE not in self.labels:
                raise UsageError(
                    f"{example.place or 'a question'} has no answer, and every question that was trained on has one; "
                    "remove it, or train with such questions, too"
                )

    def rows(self, example: Example) -> list[Row]:
        """A question, encoded with each window of its context. The first of several answers is the target.

        Raises:
            UsageError: there is no token in its answer, or in its question.
            TinyformerError: the tokenizer cannot represent it.
        """
        asked, context = example.texts
        name = example.place or "the text"
        question = self.framing.encode(asked, name)
        ids, places = self.tokenizer.encode_located(context, name)
        room = self.framing.room(2)
        kept = question[: max(1, room // 2)]
        room -= len(kept)
        span = None if example.label is None else self._span(example, places)
        stride = min(STRIDE, max(1, room // 2)) if self.stride is None else self.stride
        found = windows([1] * len(ids), room, stride) if len(ids) else [(0, 0)]
        whose = owners(found, len(ids))
        rows = []
        for number, (start, stop) in enumerate(found):
            texts = [kept, ids[start:stop]]
            row, segments = self.framing.layout(texts)
            first = self.framing.starts(texts)[1]
            target = None
            if span is not None:
                inside = start <= span[0] and span[1] < stop
                target = tuple(place - start + first for place in span) if inside else (0, 0)
            origin = Origin(first, places[start:stop], whose[start:stop] == number)
            rows.append(Row(row, segments, target, len(question) - len(kept), origin))
        return rows

    def _span(self, example: Example, places: np.ndarray) -> tuple[int, int]:
        """The first and the last token of the answer; before all tokens where there is none."""
        if not example.label:
            return -1, -1
        text, start = example.label[0]
        starts, stops = places.T
        there = np.flatnonzero((starts < stops) & (stops > start) & (starts < start + len(text)))
        if not len(there):
            raise UsageError(f"{example.place or 'a question'}: the tokenizer has no token for the answer {text!r}")
        return int(there[0]), int(there[-1])

    def corrupt(self, rows: Sequence[Row], rngs: Sequence[Any] = ()) -> Batch:
        """A batch whose targets are the places of the answer's first and last token, `b 2`; `<cls>` for none."""
        targets = np.array([row.target or (0, 0) for row in rows], np.int32)
        return Batch(**self.framing.batch(rows), targets=targets)

    def head(self, init: nn.Initializer) -> nn.Module:
        """A linear map of each token to two scores, without dropout, as in run_squad.py."""
        return TokenHead(self.config, 2, init, dropout=False)

    def predict(self, model: Any, batch: Batch, *, rng: Generator | None = None) -> Prediction:
        """How likely the answer begins, and ends, at each token, `b 2 t`, beside where it does.

        Its mean cross-entropy is half of that of the beginnings and half of that of the ends, as BERT's loss.

        Raises:
            UsageError: the model is of another mode.
        """
        self.check(model)
        scores = ops.permute_dims(model(batch.inputs, **batch.keywords, rng=rng), axes=(0, 2, 1))
        if batch.mask is not None:
            xp = scores.backend
            real = xp.from_host(batch.mask)[:, None, :] != 0
            scores = ops.where(real, scores, Tensor(xp.full((1, 1, 1), HIDDEN, dtype=scores.dtype)))
        return Prediction(scores, batch.targets)

    @no_grad()
    def outputs(self, model: Any, batch: Batch) -> list[np.ndarray]:
        """For each row, the scores of its tokens to be the answer's first and its last, float64: `2 t`."""
        scores = self.predict(model, batch).logits
        host = scores.backend.to_host(scores.array).astype(np.float64)
        if batch.mask is None:
            return list(host)
        return [row[:, : int(real.sum())] for row, real in zip(host, np.asarray(batch.mask) != 0)]

    def answer(self, example: Example, outputs: Sequence[np.ndarray]) -> tuple[tuple[str, int], ...]:
        """The answer's text and its first character; nothing for no answer."""
        found = self.find(example, outputs)
        return ((found.text, found.start),) if found.text else ()

    def find(self, example: Example, outputs: Sequence[np.ndarray]) -> Found:
        """The answer with what supports it, from the scores of an example's rows.

        The first of equally good ones. Where no answer is not known, it is given only if there is no token to choose.
        """
        none, none_row = min((float(scores[:, 0].sum()), number) for number, scores in enumerate(outputs))
        best, spot, unlabelled = -np.inf, None, dataclasses.replace(example, label=None)
        for number, (row, scores) in enumerate(zip(self.rows(unlabelled), outputs, strict=True)):
            origin: Origin = row.origin
            first, last = scores[:, origin.first : origin.first + len(origin.places)]
            first = np.where(origin.own, first, -np.inf)
            for length in range(min(self.longest, len(first))):
                sums = first[: len(first) - length] + last[length:]
                start = int(sums.argmax())
                if sums[start] > best:
                    best, spot = float(sums[start]), (number, origin, start, start + length)
        if spot is not None and not (NONE in self.labels and none - best > self.threshold):
            number, origin, first, last = spot
            begin, end = int(origin.places[first, 0]), int(origin.places[last, 1])
            text = example.texts[1][begin:end]
            if text.strip():
                begin += len(text) - len(text.lstrip())
                probability = _probability(outputs[number], origin.first + first, origin.first + last)
                return Found(text.strip(), begin, probability, best - none)
        return Found("", 0, _probability(outputs[none_row], 0, 0), best - none)

    def measure(self, examples: Sequence[Example], answers: Sequence[Any]) -> dict[str, float]:
        """`exact_match` and `f1` of SQuAD; where only some questions have an answer, also of those and the others."""
        gold = [[text for text, _ in example.label] for example in examples]
        return metric.measure(gold, [answer[0][0] if answer else "" for answer in answers])

    def describe(self, example: Example, outputs: Sequence[np.ndarray]) -> dict[str, Any]:
        """`question` (and `id`, if it has one), `answer` with its first character and the one behind the last.

        Then its `probability`, and where there may be no answer the `margin` of the best one over that.
        """
        found = self.find(example, outputs)
        said: dict[str, Any] = {"id": example.key} if example.key else {}
        said |= {"question": example.texts[0], "answer": found.text}
        said |= {"start": found.start, "stop": found.start + len(found.text)} if found.text else {}
        said["probability"] = round(found.probability, 6)
        if NONE in self.labels and np.isfinite(found.margin):
            said["margin"] = round(found.margin, 6)
        return said


def _probability(scores: np.ndarray, first: int, last: int) -> float:
    """That the answer is from the one token to the other, as a window's scores have it."""
    known = log_softmax(scores)
    return float(np.exp(known[0, first] + known[1, last]))
