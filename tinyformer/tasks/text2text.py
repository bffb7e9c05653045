"""Text in, text out: summarising, translating, or putting what someone wrote into one form.

T5 made every task one of this kind (Raffel 2020, §2.4): the source begins with a few words that say what to do, such as
"summarize: ", and what the model was pretrained for, to write a target given a source, is all that it needs. So nothing
is added to the model, and the run stays one that `tinyformer generate`, `fill` and `export` use as any other.

The model learns from the true target (`seq2seq.py`) and is measured by what it writes by itself, the likeliest token
each time. Sources and targets that are too long lose their end, before they get the end token, as in T5's pipeline; a
prefix is part of its source. Names of special tokens in a text are text.

Read before: `task.py`, `tinyformer/objectives/seq2seq.py`, `tinyformer/generation/decode.py`.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import UsageError
from ..generation import Options, answer_sources, generate
from ..models import ModelConfig
from ..objectives import Batch
from ..objectives.seq2seq import teacher_forced
from ..text import Tokenizer
from . import examples
from .encoding import Framing
from .examples import Columns, Example
from .lines import Source
from .metrics import texts as metric
from .task import Row, Task

SHOWN = 40  # characters of a prefix in a message
STEPS = 4  # lengths that batches on a device have


@dataclasses.dataclass(frozen=True)
class Written:
    """What a model has written.

    Attributes:
        text: whole; what is no valid UTF-8 in it is replaced.
        ended: why: "end" by its end token, or "length" as the context was full.
    """

    text: str
    ended: str


class Text2Text(Task):
    """A text to write, given another one.

    Args:
        tokenizer: of the run.
        config: of the pretrained model.
        labels: none.
        prefix: put before each source; the run keeps it.
        beams: of a search for what is likeliest as a whole; None or 1 takes the likeliest token each time.

    Raises:
        UsageError: the model is no encoder-decoder, or the context has no room for more than the prefix.
        TinyformerError: the tokenizer cannot represent the prefix.
    """

    name, modes, best = "text2text", ("encoder-decoder",), "average"
    form = "source TAB target"

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: ModelConfig,
        *,
        labels: Sequence[str] = (),
        prefix: str = "",
        beams: int | None = None,
    ) -> None:
        super().__init__(tokenizer, config, labels=labels, prefix=prefix)
        self.framing, self.beams = Framing(tokenizer, config), beams
        self.end, self.pad = tokenizer.special_id("end"), tokenizer.special_id("pad")
        used = len(tokenizer.encode(prefix, "the prefix"))
        if used >= self.framing.room(1):
            shown = prefix if len(prefix) <= SHOWN else prefix[:SHOWN] + "..."
            raise UsageError(
                f"the prefix {shown!r} has {used} tokens, which leaves no room for a source in a context of "
                f"{config.context}; shorten it"
            )

    @classmethod
    def stream(
        cls,
        source: Source,
        columns: Columns = Columns(),
        *,
        labelled: bool = True,
        warn: Callable[[str], None] = lambda message: None,
    ) -> Iterator[Example]:
        """The pairs of a file, the targets as labels; see `Task.stream`, and `examples.stream` for its formats."""
        return examples.stream(source, columns, texts=1, form=cls.form, labelled=labelled, warn=warn)

    def rows(self, example: Example) -> list[Row]:
        """A source and its target, encoded: one row, both with their end token, cut where the context is too short."""
        place = example.place or "the text"
        ids, cut = self._closed(self.prefix + example.texts[0], place)
        if example.label is None:
            return [Row(ids, cut=cut)]
        target, more = self._closed(example.label, place)
        return [Row(ids, target=target, cut=cut + more)]

    def _closed(self, text: str, place: str) -> tuple[np.ndarray, int]:
        """A text's tokens with the end token, and how many others the context had no room for."""
        kept, cut = self.framing.fit([self.framing.encode(text, place)])
        return self.framing.layout(kept)[0], cut

    def corrupt(self, rows: Sequence[Row], rngs: Sequence[Any] = ()) -> Batch:
        """A batch in which the decoder is given each target one place later; rows without one have an empty one."""
        sources = [row.ids[:-1] for row in rows]  # which gives them their ends again
        targets = [row.ids[:0] if row.target is None else row.target[:-1] for row in rows]
        return teacher_forced(sources, targets, end=self.end, pad=self.pad)

    def fixed(self, batch: Batch) -> Batch:
        """For a device that replays its work: lengths are quarters of the context; see `Objective.fixed`."""
        found = batch.arrays
        found.setdefault("mask", np.ones(batch.inputs.shape, np.bool_))
        found.setdefault("weights", np.ones(batch.targets.shape, np.float32))
        step = -(-self.config.context // STEPS)
        for name, array in found.items():
            more = min(-(-array.shape[1] // step) * step, self.config.context) - array.shape[1]
            fill = 0 if name in ("mask", "weights") else self.pad
            found[name] = np.pad(array, ((0, 0), (0, more)), constant_values=fill)
        return dataclasses.replace(batch, **found).normalised()

    def outputs(self, model: Any, batch: Batch) -> list[Written]:
        """What the model writes to each source; the targets are not looked at.

        Raises:
            UsageError: the model is of another mode.
            TinyformerError: its output is not finite.
        """
        self.check(model)
        if self.beams is not None and self.beams > 1:
            lengths = [batch.inputs.shape[1]] * len(batch) if batch.mask is None else batch.mask.sum(axis=1)
            return [self._searched(model, ids[:length]) for ids, length in zip(batch.inputs, lengths)]
        return [self._written(ids) for ids in answer_sources(model, self.tokenizer, batch.inputs, mask=batch.mask)]

    def _written(self, ids: list[int]) -> Written:
        complete = ids[-1] == self.end
        return Written(_as_text(self.tokenizer.decode(ids[:-1] if complete else ids)), "end" if complete else "length")

    def _searched(self, model: Any, source: np.ndarray) -> Written:
        options = Options(tokens=self.config.context, beams=self.beams)
        pieces = list(generate(model, self.tokenizer, source, options))
        return Written(_as_text(b"".join(piece.text for piece in pieces)), pieces[-1].ended or "length")

    def answer(self, example: Example, outputs: Sequence[Written]) -> str:
        """The text."""
        return outputs[0].text

    def measure(self, examples: Sequence[Example], answers: Sequence[str]) -> dict[str, float]:
        """`exact_match`, `bleu`, `rouge_l`, and `average`: the mean of the three as shares.

        No single one of them tells of two epochs which is better in every task: summaries never match exactly, BLEU
        knows no texts of fewer than four words, and ROUGE no script but the Latin one. Where no target has four words,
        `bleu` is NaN, and the average that of the other two.
        """
        found = metric.measure([example.label for example in examples], answers)
        shares = [found["exact_match"], found["bleu"] / 100, found["rouge_l"]]
        return found | {"average": statistics.mean(share for share in shares if not math.isnan(share))}

    def describe(self, example: Example, outputs: Sequence[Written]) -> dict[str, Any]:
        """`text`, and `ended`: "end", or "length" where it is not whole because the context was full."""
        return dataclasses.asdict(outputs[0])


def _as_text(written: bytes) -> str:
    return written.decode("utf-8", "replace")
