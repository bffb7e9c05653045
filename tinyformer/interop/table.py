"""One table of names serves both directions: reading another library's weights, and writing them.

A row says what a parameter is called here and there, and how its numbers lie there: as here, transposed (torch's
linear maps hold `outputs inputs`, ours `inputs outputs`), as one part of a wider array (GPT-2 keeps queries, keys and
values side by side), or with the channels of each head in another order (RoFormer).

Read before: `weights.py`. Read next: `family.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from einops import rearrange

from ..errors import TinyformerError
from .weights import Weights


@dataclasses.dataclass(frozen=True)
class Row:
    """One parameter.

    Attributes:
        ours: its name here.
        theirs: its name there.
        transposed: whether its two axes are swapped there.
        part: which share of the last axis there it is, and of how many equal ones.
        optional: whether a checkpoint may lack it, as a body without a head does.
        pairs: of so many heads, if not 0, the last axis here has the two halves, whose channels are paired there.
    """

    ours: str
    theirs: str
    transposed: bool = False
    part: tuple[int, int] = (0, 1)
    optional: bool = False
    pairs: int = 0


def linear(ours: str, theirs: str, *, bias: bool = True, **more: Any) -> Iterator[Row]:
    """The rows of a linear map that is one of torch's there."""
    yield Row(f"{ours}.weight", f"{theirs}.weight", transposed=True, **more)
    if bias:
        yield Row(f"{ours}.bias", f"{theirs}.bias", **more)


def same(ours: str, theirs: str, *, bias: bool = True, **more: Any) -> Iterator[Row]:
    """The rows of a weight, and mostly a bias, that lie there as here."""
    for kind in ("weight", "bias") if bias else ("weight",):
        yield Row(f"{ours}.{kind}", f"{theirs}.{kind}", **more)


def from_theirs(row: Row, array: np.ndarray) -> np.ndarray:
    """Our parameter out of their array."""
    number, parts = row.part
    width = array.shape[-1] // parts if array.ndim else 0
    array = array[..., number * width : (number + 1) * width] if parts > 1 else array
    array = array.T if row.transposed else array
    return rearrange(array, "... (h c two) -> ... (h two c)", h=row.pairs, two=2) if row.pairs else array


def to_theirs(rows: list[Row], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Their arrays, by their names, out of ours: parameters or, as it is linear, gradients."""
    parts: dict[str, list[np.ndarray]] = {}
    for row in rows:  # the parts of an array stand in their order
        array = arrays[row.ours]
        if row.pairs:
            array = rearrange(array, "... (h two c) -> ... (h c two)", h=row.pairs, two=2)
        parts.setdefault(row.theirs, []).append(array.T if row.transposed else array)
    return {
        name: np.ascontiguousarray(found[0]) if len(found) == 1 else np.concatenate(found, axis=-1)
        for name, found in parts.items()
    }


def their_shape(row: Row, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that their array must have, of which a parameter of this shape is made."""
    shape = shape[::-1] if row.transposed else shape
    return (*shape[:-1], shape[-1] * row.part[1])


Finder = Callable[[str], str | None]  # from a row's `theirs` to the name in the file; None where there is none


def check(shapes: Mapping[str, tuple[int, ...]], rows: list[Row], weights: Weights, find: Finder) -> None:
    """Hold the tensors of a file to the parameters of a model.

    Args:
        shapes: of the parameters, by our names.
        rows: of all of them.
        weights: that are to be read.
        find: where they are.

    Raises:
        TinyformerError: a tensor is missing that is not optional, or its shape is not the configuration's.
    """
    for row in rows:
        name, expected = find(row.theirs), their_shape(row, shapes[row.ours])
        if name is None and not row.optional:
            raise TinyformerError(f"{weights.path} lacks the tensor {row.theirs!r}, which its config.json asks for")
        if name is not None and expected != weights.shape(name):
            raise TinyformerError(
                f"{weights.path}: the tensor {name!r} should be of shape {expected}, and is of shape "
                f"{weights.shape(name)}; do config.json and the weights belong together?"
            )


def fill(model: Any, rows: list[Row], weights: Weights, find: Finder) -> None:
    """Copy weights into a model, one tensor at a time; where one is lacking, the parameter stays as it is.

    Arguments as for `check`, which has been called.

    Raises:
        TinyformerError: a tensor is of a type that cannot be read, or holds what is no finite float32.
    """
    parameters = model.parameters()
    for row in rows:
        name, parameter = find(row.theirs), parameters[row.ours]
        if name is not None:
            values = from_theirs(row, weights.read(name))
            if not np.isfinite(values).all():
                raise TinyformerError(
                    f"{weights.path}: the tensor {name!r} holds numbers that are not finite in float32; a model with "
                    "such weights predicts nothing, so fetch or train it again"
                )
            parameter.array[...] = parameter.backend.from_host(values, dtype=parameter.dtype)
