"""Lets einops work on Tensors: `rearrange`, `reduce`, `repeat` and `einsum`, differentiably.

einops finds a backend by looking through the subclasses of its AbstractBackend for one that claims the type.

Read before: `ops.py`.
"""

from __future__ import annotations

import math
import string
from typing import Any

from einops._backends import AbstractBackend

from . import functional, ops
from .tensor import Tensor


class TinyformerBackend(AbstractBackend):
    """What einops asks of an array library, answered with our primitives."""

    framework_name = "tinyformer"

    def is_appropriate_type(self, tensor: Any) -> bool:
        return isinstance(tensor, Tensor)

    def is_float_type(self, x: Tensor) -> bool:
        return x.backend.is_floating(x.array)

    def shape(self, x: Tensor) -> tuple[int, ...]:
        return x.shape

    def arange(self, start: int, stop: int) -> Any:
        return range(start, stop)

    def reshape(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return ops.reshape(x, shape=tuple(shape))

    def transpose(self, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        return ops.permute_dims(x, axes=tuple(axes))

    def add_axis(self, x: Tensor, new_position: int) -> Tensor:
        return ops.reshape(x, shape=(*x.shape[:new_position], 1, *x.shape[new_position:]))

    def add_axes(self, x: Tensor, n_axes: int, pos2len: dict[int, int]) -> Tensor:
        known = iter(x.shape)
        shape = tuple(1 if i in pos2len else next(known) for i in range(n_axes))
        repeated = tuple(pos2len.get(i, n) for i, n in enumerate(shape))
        return ops.broadcast_to(ops.reshape(x, shape=shape), shape=repeated)

    def concat(self, tensors: list[Tensor], axis: int) -> Tensor:
        return ops.concat(*tensors, axis=axis)

    def stack_on_zeroth_dimension(self, tensors: list[Tensor]) -> Tensor:
        return ops.concat(*(self.add_axis(x, 0) for x in tensors), axis=0)

    def reduce(self, x: Tensor, operation: str, axes: tuple[int, ...]) -> Tensor:
        axes = tuple(axes)
        if operation == "sum":
            return ops.sum(x, axis=axes)
        if operation == "mean":
            return functional.mean(x, axis=axes)
        if operation == "max":
            return ops.max(x, axis=axes)
        if operation == "min":
            return -ops.max(-x, axis=axes)
        raise ValueError(f"einops' reduction {operation!r} is not available on Tensors; sum, mean, max and min are")

    def einsum(self, pattern: str, *tensors: Tensor) -> Tensor:
        """An Einstein sum by matrix products: operands are folded from the left, two at a time.

        Args:
            pattern: such as "btd,df->btf", each letter at most once in an operand; "..." stands for axes that the
                operands with it share.
            tensors: one for each operand.
        """
        inputs, _, wanted = pattern.partition("->")
        if "..." in pattern:
            operands = inputs.split(",")
            ranks = [x.ndim - len(axes) + 3 for x, axes in zip(tensors, operands) if "..." in axes]
            unused = "".join(letter for letter in string.ascii_letters if letter not in pattern)[: max(ranks)]
            ranks = iter(ranks)
            operands = [
                axes.replace("...", unused[len(unused) - next(ranks) :]) if "..." in axes else axes for axes in operands
            ]
            inputs, wanted = ",".join(operands), wanted.replace("...", unused)
        letters = [list(axes) for axes in inputs.split(",")]
        if any(len(set(axes)) < len(axes) for axes in letters):
            raise ValueError(f"an axis occurs twice in one operand of {pattern!r}; diagonals are not available")
        axes, result = letters[0], tensors[0]
        for i in range(1, len(tensors)):
            needed = set(wanted).union(*letters[i + 1 :])
            axes, result = _contract(result, axes, tensors[i], letters[i], needed)
        return _arrange(result, axes, list(wanted))


def _contract(a: Tensor, a_axes: list[str], b: Tensor, b_axes: list[str], needed: set[str]) -> tuple[list[str], Tensor]:
    """One product of two operands, summed over the shared axes that nothing else needs."""
    lengths = dict(zip(a_axes, a.shape)) | dict(zip(b_axes, b.shape))
    shared = [n for n in a_axes if n in b_axes]
    batch = [n for n in shared if n in needed]
    summed = [n for n in shared if n not in needed]
    rows = [n for n in a_axes if n not in shared and n in needed]
    columns = [n for n in b_axes if n not in shared and n in needed]

    def grouped(x: Tensor, axes: list[str], *groups: list[str]) -> Tensor:
        x = _arrange(x, axes, [n for group in groups for n in group])
        return ops.reshape(x, shape=tuple(math.prod(lengths[n] for n in group) for group in groups))

    product = ops.matmul(grouped(a, a_axes, batch, rows, summed), grouped(b, b_axes, batch, summed, columns))
    axes = batch + rows + columns
    return axes, ops.reshape(product, shape=tuple(lengths[n] for n in axes))


def _arrange(x: Tensor, axes: list[str], wanted: list[str]) -> Tensor:
    """Sum over the axes that are not wanted, and bring the others into order."""
    lost = tuple(i for i, n in enumerate(axes) if n not in wanted)
    if lost:
        x, axes = ops.sum(x, axis=lost), [n for n in axes if n in wanted]
    order = tuple(axes.index(n) for n in wanted)
    return x if order == tuple(range(len(order))) else ops.permute_dims(x, axes=order)
