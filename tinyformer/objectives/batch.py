"""What an objective hands to a model: inputs, targets, and how much each target counts.

Rows of text differ in length, and a batch is rectangular. What fills the rest is padding, which a mask hides from the
model and a weight of 0 from the loss.

Read next: `objective.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from .. import backends
from ..tensor import Array


@dataclasses.dataclass(frozen=True)
class Batch:
    """One batch: NumPy arrays, for it is data of the host. `len` is the number of rows.

    A step on a device gets one whose arrays are already there, from an objective's `fixed`.

    Attributes:
        inputs: integers, `b t`; the source, `b s`, where there are decoder inputs.
        targets: integers, `b t`.
        weights: of each target, float32, `b t`; None counts each once.
        mask: True where an input is real, or the number of its document within the row, 0 for padding: `b t`, or `b s`.
        segments: which of a pair's texts an input belongs to, integers, `b t`.
        positions: of the inputs, integers, `b t`; None for 0, 1, 2, ...
        decoder_inputs: what a decoder sees beside the source, `b t`: the targets, one place later.
        labels: the class of each row, integers, `b`.
        places: where in its row each target stands, integers, `b n`; targets and weights are then `b n`, too.
        total: what the loss is divided by, where that is not the sum of the weights.
    """

    inputs: Array
    targets: Array
    weights: Array | None = None
    mask: Array | None = None
    segments: Array | None = None
    positions: Array | None = None
    decoder_inputs: Array | None = None
    labels: Array | None = None
    places: Array | None = None
    total: float | None = None

    def __len__(self) -> int:
        return self.inputs.shape[0]

    @property
    def tokens(self) -> float:
        """Target tokens, by weight: what the loss is averaged over."""
        if self.total is not None:
            return self.total
        return float(self.targets.size if self.weights is None else self.weights.sum())

    @property
    def ids(self) -> tuple[Array, ...]:
        """What a model is called with by place: the inputs, and a decoder's inputs where there are some."""
        return (self.inputs,) if self.decoder_inputs is None else (self.inputs, self.decoder_inputs)

    @property
    def keywords(self) -> dict[str, Array]:
        """What a model is called with by name."""
        given = {"mask": self.mask, "segments": self.segments, "positions": self.positions}
        return {name: array for name, array in given.items() if array is not None}

    def rows(self, start: int, stop: int) -> Batch:
        """Part of the batch."""
        return dataclasses.replace(self, **{name: array[start:stop] for name, array in self.arrays.items()})

    @property
    def arrays(self) -> dict[str, Array]:
        """Those of the arrays that are there, by name."""
        arrays = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "total"}
        return {name: array for name, array in arrays.items() if array is not None}

    def normalised(self) -> Batch:
        """The same with weights that are shares of their sum: no number is left that each batch has of its own."""
        if self.weights is None:
            return self
        return dataclasses.replace(self, weights=self.weights / self.weights.dtype.type(self.tokens or 1.0), total=1.0)


def pad_rows(rows: Sequence[Array], pad: int, length: int | None = None) -> tuple[Array, Array | None]:
    """Rows of any lengths as one array.

    Args:
        rows: integers, each of one axis; at least one row.
        pad: fills the short ones at their end.
        length: of the result, `t`; default that of the longest row.

    Returns:
        Integers `b t`, and True where they are not padding, `b t`; None where nothing is.
    """
    lengths = [row.shape[0] for row in rows]
    length = max(lengths) if length is None else length
    xp = backends.of(rows[0])
    padded = xp.full((len(rows), length), pad, dtype=rows[0].dtype)
    for number, row in enumerate(rows):
        padded[number, : lengths[number]] = row
    if min(lengths) == length:
        return padded, None
    return padded, xp.arange(length)[None, :] < xp.asarray(lengths)[:, None]
