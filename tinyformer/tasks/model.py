"""A pretrained body with a head for a task.

The body is a model as it was pretrained, with its own output layer, which the head stands beside: nothing of it changes
but its weights. Parameters are named "body...." and "head....".

Read before: `heads.py`. Read next: `task.py`.
"""

from __future__ import annotations

import contextlib
from typing import Any

from .. import nn
from ..backends import Generator
from ..models import Decoder, Encoder, ModelConfig
from ..tensor import Tensor, no_grad


class TaskModel(nn.Module):
    """A body and a head.

    Args:
        body: pretrained; it is used as it is, not copied.
        head: from `Task.head`.
        frozen: whether no gradient goes into the body, so that the head alone is trained.
    """

    def __init__(self, body: Encoder | Decoder, head: nn.Module, *, frozen: bool = False) -> None:
        self.body, self.head, self.frozen = body, head, frozen

    @property
    def config(self) -> ModelConfig:
        """That of the body."""
        return self.body.config

    def __call__(
        self, ids: Any, *, mask: Any = None, segments: Any = None, positions: Any = None, rng: Generator | None = None
    ) -> Tensor:
        """What the head says: of each row, `b n`, or of each token, `b t n`. Arguments as of the body."""
        hidden = self.hidden(ids, mask=mask, segments=segments, positions=positions, rng=rng)
        return self.score(hidden, mask=mask, rng=rng)

    def hidden(self, ids: Any, **keywords: Any) -> Tensor:
        """What the body knows of each position, `b t d`. Arguments as for a call."""
        with no_grad() if self.frozen else contextlib.nullcontext():
            return self.body.hidden(ids, **keywords)

    def score(self, hidden: Tensor, *, mask: Any = None, rng: Generator | None = None) -> Tensor:
        """What the head says of hidden states `b t d`."""
        return self.head(hidden, mask=mask, body=self.body, rng=rng)
