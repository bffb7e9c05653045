"""Heads: from what a pretrained body knows of each position to what a task asks for.

All are called alike, with the hidden states, the mask, the body and the random stream, and start from small random
weights while the body brings its own.

Read before: `tinyformer/models/encoder.py`. Read next: `model.py`.
"""

from __future__ import annotations

from typing import Any

from .. import fused, nn, ops
from ..backends import Generator
from ..models import Model, ModelConfig
from ..tensor import Tensor


class PooledHead(nn.Module):
    """A text's scores from what an encoder knows at `<cls>`: BERT's pooler, dropout, a linear map (Devlin 2019, §4.1).

    Where the body has a pooler, which next-sentence prediction trained, that one is used, and trained on. A new one
    ends in tanh, as that does; with rotary positions in the body's activation, as transformers' RoFormer has it.

    Args:
        config: of the body.
        outputs: scores for each text, `n`.
        init: makes the parameters.
    """

    def __init__(self, config: ModelConfig, outputs: int, init: nn.Initializer) -> None:
        self.pooler = None if config.next_sentence else nn.Linear(config.width, config.width, init)
        self.output = nn.Linear(config.width, outputs, init)
        turned = config.positions == "rotary" and self.pooler is not None
        self.activate = fused.ACTIVATIONS[config.activation] if turned else ops.tanh
        self.dropout = config.dropout

    def __call__(self, hidden: Tensor, *, mask: Any, body: Model, rng: Generator | None = None) -> Tensor:
        """`b t d` to `b n`."""
        pooler = body.pooler if self.pooler is None else self.pooler
        pooled = self.activate(pooler(hidden[:, 0]))
        return self.output(nn.dropout(pooled, self.dropout, rng))


class LastHead(nn.Module):
    """A text's scores from what a decoder knows at its last token: a linear map (Radford 2018, §3.2).

    Args:
        config: of the body.
        outputs: scores for each text, `n`.
        init: makes the parameter.
    """

    def __init__(self, config: ModelConfig, outputs: int, init: nn.Initializer) -> None:
        self.output = nn.Linear(config.width, outputs, init, bias=False)

    def __call__(self, hidden: Tensor, *, mask: Any, body: Model, rng: Generator | None = None) -> Tensor:
        """`b t d` to `b n`; the last token is the last one that the mask `b t` says is real."""
        if mask is None:
            return self.output(hidden[:, -1])
        xp, (rows, length, width) = hidden.backend, hidden.shape
        mask, places = xp.from_host(mask), xp.arange(length)
        real = mask if mask.dtype == xp.bool else mask != 0
        last = xp.max(xp.where(real, places[None, :], xp.zeros_like(places)[None, :]), axis=1)
        flat = ops.reshape(hidden, shape=(rows * length, width))
        return self.output(ops.take(flat, xp.arange(rows) * length + last))


class TokenHead(nn.Module):
    """Scores of each token: dropout and a linear map (Devlin 2019, §4.2 and §5.3).

    Args:
        config: of the body.
        outputs: scores for each token, `n`.
        init: makes the parameters.
        dropout: whether some of what is known of a token is dropped in training.
    """

    def __init__(self, config: ModelConfig, outputs: int, init: nn.Initializer, *, dropout: bool = True) -> None:
        self.output = nn.Linear(config.width, outputs, init)
        self.dropout = config.dropout if dropout else 0.0

    def __call__(self, hidden: Tensor, *, mask: Any, body: Model, rng: Generator | None = None) -> Tensor:
        """`b t d` to `b t n`."""
        return self.output(nn.dropout(hidden, self.dropout, rng))


def head_parameters(config: ModelConfig, task: str, labels: int) -> int:
    """The number of parameters of a task's head, without making it.

    Args:
        config: of the body.
        task: its name.
        labels: how many a run knows.
    """
    d, outputs = config.width, {"regress": 1, "answer": 2, "text2text": 0}.get(task, labels)
    if config.mode != "encoder":  # without biases
        return d * outputs
    pooler = 0 if config.next_sentence or task in ("tag", "answer") else d * d + d
    return pooler + d * outputs + outputs
