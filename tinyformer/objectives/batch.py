"""What an objective hands to a model: inputs, targets, and how much each target counts."""

from __future__ import annotations

import dataclasses

from ..tensor import Array


@dataclasses.dataclass(frozen=True)
class Batch:
    """One batch: NumPy arrays, for it is data of the host.

    Attributes:
        inputs: integers, `b t`.
        targets: integers, `b t`.
        weights: of each target, `b t`; None counts each once.
    """

    inputs: Array
    targets: Array
    weights: Array | None = None

    @property
    def tokens(self) -> float:
        """Target tokens, by weight: what the loss is averaged over."""
        return float(self.targets.size if self.weights is None else self.weights.sum())

    def rows(self, start: int, stop: int) -> Batch:
        """Part of the batch."""
        weights = None if self.weights is None else self.weights[start:stop]
        return Batch(self.inputs[start:stop], self.targets[start:stop], weights)
