"""From hidden states to a score of every token of the vocabulary.

Read before: `stack.py`. Read next: `decoder.py`.
"""

from __future__ import annotations

from .. import fused, nn
from ..tensor import Tensor
from .config import ModelConfig


class Head(nn.Module):
    """The output layer, often the token embedding once more (Press and Wolf 2017), and what stands before it.

    BERT has a linear map, the activation and a norm there, and a bias of the logits (Devlin 2019, §3.1, by its code).

    Args:
        config: of the model.
        init: makes the parameters.
    """

    def __init__(self, config: ModelConfig, init: nn.Initializer) -> None:
        width, transform = config.width, config.head == "transform"
        self.dense = nn.Linear(width, width, init) if transform else None
        self.norm = nn.make_norm(config.norm, width, init, bias=True, epsilon=config.epsilon) if transform else None
        self.output = None if config.tied else nn.Linear(width, config.vocabulary, init, bias=False)
        self.bias = init.constant(config.vocabulary, value=0.0) if transform else None
        self.activation = nn.ACTIVATIONS[config.activation]
        self.scale = width**-0.5 if config.scaled_head else 1.0

    def __call__(self, x: Tensor, tokens: nn.Embedding) -> Tensor:
        """Logits `... v` of hidden states `... d`; `tokens` is the embedding, for where it is the output layer."""
        if self.dense is not None:
            x = self.norm(self.activation(self.dense(x)))
        if self.scale != 1.0:
            x = x * self.scale
        weight = tokens.weight.T if self.output is None else self.output.weight
        return fused.linear(x, weight, self.bias)
