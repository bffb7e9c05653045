"""What tasks have in common whose answer is about one or two whole texts: a class, or a number.

An encoder answers at `<cls>`, through BERT's pooler (Devlin 2019, §4.1). A decoder answers at its last token, and goes
on learning to write in training: GPT-1's loss is L₂ + λ L₁, with L₂ that of the task, L₁ that of the language model on
the same text and λ = 0.5, which "improved generalization and accelerated convergence" (Radford 2018, §3.2). Each is the
mean over examples, and L₁ of an example the mean over its tokens, as in the code that was published.

Read before: `task.py`, `encoding.py`, `heads.py`. Read next: `classify.py`, `regress.py`.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from .. import nn
from ..backends import Generator
from ..models import ModelConfig
from ..objectives import Batch
from ..objectives.objective import Prediction
from ..tensor import Array, Tensor, no_grad
from ..text import Tokenizer
from . import examples
from .encoding import Framing, in_steps
from .examples import Columns, Example
from .heads import LastHead, PooledHead
from .lines import Source
from .task import Row, Task

AUXILIARY = 0.5  # λ


class WholeTexts(Task):
    """A task with one answer for one or two texts.

    Args:
        tokenizer: of the run.
        config: of the pretrained model.
        labels: as of `Task`.
        auxiliary: weight of the language model's loss, where a decoder is trained.

    Attributes:
        texts: of an example; None for one or two.
    """

    modes = ("encoder", "decoder")
    texts: ClassVar[int | None]

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: ModelConfig,
        *,
        labels: Sequence[str] = (),
        prefix: str = "",
        auxiliary: float = AUXILIARY,
    ) -> None:
        super().__init__(tokenizer, config, labels=labels, prefix=prefix)
        self.framing = Framing(tokenizer, config)
        self.auxiliary = auxiliary if self.mode == "decoder" else 0.0
        self.unreached = ("body.next_sentence.",) if self.auxiliary else ("body.next_sentence.", "body.head.")

    @classmethod
    def stream(
        cls,
        source: Source,
        columns: Columns = Columns(),
        *,
        labelled: bool = True,
        warn: Callable[[str], None] = lambda message: None,
    ) -> Iterator[Example]:
        """The examples of a file; see `Task.stream`, and `examples.stream` for its formats.

        White space around a label belongs to the file and not to the label.
        """
        for example in examples.stream(source, columns, texts=cls.texts, labelled=labelled, warn=warn):
            yield example if example.label is None else dataclasses.replace(example, label=example.label.strip())

    def rows(self, example: Example) -> list[Row]:
        """An example, encoded: one row, cut where the context is too short."""
        tokens = [self.framing.encode(self.prefix + text, example.place or "the text") for text in example.texts]
        kept, cut = self.framing.fit(tokens)
        ids, segments = self.framing.layout(kept)
        return [Row(ids, segments, self.target(example), cut)]

    @abc.abstractmethod
    def target(self, example: Example) -> Any:
        """What the head should say; None where the example has no label."""

    @property
    @abc.abstractmethod
    def width(self) -> int:
        """Scores that the head gives."""

    @abc.abstractmethod
    def judge(self, scores: Tensor, labels: Array, *, total: int) -> Tensor:
        """The loss of the head's scores `b n`: a sum over the rows, divided by `total`."""

    def corrupt(self, rows: Sequence[Row], rngs: Sequence[Any] = ()) -> Batch:
        """A batch whose labels are the rows' targets; its targets are the labels, too, or a decoder's next tokens."""
        given = self.framing.batch(rows)
        labels = np.array([0 if row.target is None else row.target for row in rows])
        labels = labels.astype(np.float32 if labels.dtype.kind == "f" else np.int32)
        if not self.auxiliary:
            return Batch(**given, targets=labels[:, None], labels=labels)
        inputs = given["inputs"]
        targets = np.full_like(inputs, self.framing.pad)
        targets[:, :-1] = inputs[:, 1:]
        told = np.array([[len(row.ids) - 1] for row in rows])  # tokens that have one before them
        weights = (np.arange(inputs.shape[1]) < told) / np.maximum(told, 1)
        return Batch(**given, targets=targets, weights=weights.astype(np.float32), labels=labels)

    def fixed(self, batch: Batch) -> Batch:
        """For a device that replays its work; see `Objective.fixed`."""
        return in_steps(batch, self.framing.pad, self.config.context).normalised()

    def head(self, init: nn.Initializer) -> nn.Module:
        """BERT's pooler and a linear map, or a decoder's linear map."""
        kind = PooledHead if self.mode == "encoder" else LastHead
        return kind(self.config, self.width, init)

    def loss(self, model: Any, batch: Batch, *, whole: Batch | None = None, rng: Generator | None = None) -> Tensor:
        """The mean over examples of the task's loss, and with a decoder λ times the language model's.

        Args:
            model: from `self.model`.
            batch: from `corrupt`, with labels.
            whole: the batch that this one is a part of; default this one. The losses of its parts add up to its own.
            rng: given in training, for dropout.

        Raises:
            UsageError: the model is of another mode.
        """
        self.check(model)
        whole = batch if whole is None else whole
        hidden = model.hidden(batch.inputs, **batch.keywords, rng=rng)
        loss = self.judge(model.score(hidden, mask=batch.mask, rng=rng), batch.labels, total=len(whole))
        if not self.auxiliary or model.frozen:  # a body that learns nothing does not learn to write either
            return loss
        written = Prediction(model.body.score(hidden), batch.targets, batch.weights)
        return loss + written.nats(total=whole.tokens or 1.0, overwrite=True) * self.auxiliary

    def predict(self, model: Any, batch: Batch, *, rng: Generator | None = None) -> Prediction:
        """The head's scores beside the labels.

        Raises:
            UsageError: the model is of another mode.
        """
        self.check(model)
        return Prediction(model(batch.inputs, **batch.keywords, rng=rng), batch.labels)

    @no_grad()
    def scores(self, model: Any, batch: Batch) -> np.ndarray:
        """What the head says, `b n`, on the host, without a gradient."""
        logits = self.predict(model, batch).logits
        return logits.backend.to_host(logits.array)
