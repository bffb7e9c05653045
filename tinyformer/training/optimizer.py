"""The weights of a model as one flat array, and AdamW, which updates all of them in one pass.

Every parameter becomes a view into one array, its gradient into another, and AdamW's two running means are
two more. So clipping is a single dot product, the update a single kernel, a checkpoint a few writes, and a
sum over workers or machines one buffer.

Read before: `schedule.py`. Read next: `step.py`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

from ..tensor import Tensor

Array = Any
EVERYTHING = slice(None)
WORTH = 1 << 16  # numbers, for which another thread is worth waking


class FlatParameters:
    """Parameters, and gradients beside them, in flat storage.

    The matrices come first: weight decay, which is for them only, is then a matter of the first `decay_end`
    numbers. Each tensor's array is replaced by a view, so the model computes with the flat storage from now
    on. Where a device wants parameters to begin at certain addresses, there are zeros between them.

    Args:
        parameters: the model's, by name, all of one dtype.
        rates: factors on the learning rate of some matrices, by name; the others have 1.
        working: the dtype that the model shall compute in, where that is another, such as "bfloat16". The many small
            steps of training would be lost in its few digits, so the parameters themselves stay as they are
            (Micikevicius 2018, §3.1, "master weights").

    Attributes:
        names: of the parameters, in the order of storage.
        values: all parameters, 1-d.
        working: the same, rounded, of which the model's tensors are views; None where they are views of `values`.
        gradients: the gradient of each of them, at the same place, of the dtype of `values`.
        decay_end: numbers before the first parameter with less than two axes.
        groups: stretches of the storage, in its order, each with the factor on its learning rate.
        backend: the array namespace.
        rates: as given.
        working_dtype: of `working`, as given.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        rates: Mapping[str, float] | None = None,
        *,
        working: str | None = None,
    ) -> None:
        self.rates, self.working_dtype = rates or {}, working
        rates = self.rates
        matrices = [name for name, tensor in parameters.items() if tensor.ndim >= 2]
        matrices.sort(key=lambda name: name not in rates)
        others = [name for name, tensor in parameters.items() if tensor.ndim < 2]
        self.names = [*matrices, *others]
        self._tensors = [parameters[name] for name in self.names]
        self._shapes = [tensor.shape for tensor in self._tensors]
        self.backend = xp = self._tensors[0].backend
        own = self._tensors[0].dtype
        used = own if working is None else xp.empty(0, dtype=getattr(xp, working)).dtype
        unit = math.lcm(xp.alignment, own.itemsize, used.itemsize) // min(own.itemsize, used.itemsize)  # numbers
        begins = [0]
        for shape in self._shapes:
            begins.append(begins[-1] + -(-math.prod(shape) // unit) * unit)
        self._places = [slice(begin, begin + math.prod(shape)) for begin, shape in zip(begins, self._shapes)]
        self.decay_end = begins[len(matrices)]
        self.groups = [(place, rates[name]) for name, place in zip(self.names, self._places) if name in rates]
        self.groups.append((slice(begins[len(self.groups)], begins[-1]), 1.0))
        self.values = xp.zeros(begins[-1], dtype=own)
        self.gradients = xp.zeros_like(self.values)
        self.working = None if working is None else xp.zeros(begins[-1], dtype=used)
        views = self.views(self.gradients).values()
        self._rows = [view if view.ndim else view.reshape(1) for view in views]  # of each gradient, to be cut by rows
        for tensor, view in zip(self._tensors, self.views(self.values).values()):
            view[...] = tensor.array
        if self.working is not None:
            self.working[...] = self.values
        for tensor, view in zip(self._tensors, self.views(self.values if working is None else self.working).values()):
            tensor.array = view

    def views(self, flat: Array) -> dict[str, Array]:
        """A flat array of this layout as arrays of the parameters' shapes, by name, sharing its memory."""
        pieces = (flat[place].reshape(shape) for place, shape in zip(self._places, self._shapes))
        return dict(zip(self.names, pieces))

    def parts(self, count: int) -> list[slice]:
        """The storage in stretches of almost equal length for so many workers: fewer, where it would not pay."""
        count = max(1, min(count, self.values.shape[0] // WORTH))
        ends = [self.values.shape[0] * i // count for i in range(count + 1)]
        return [slice(begin, end) for begin, end in itertools.pairwise(ends)]

    def accumulate(self, gradients: Mapping[Tensor, Array], *, first: bool, part: slice = EVERYTHING) -> None:
        """Put one backward pass's gradients into the flat array, or add them to what is there.

        Args:
            gradients: as `backward` returns them. A parameter that is absent did not affect the loss.
            first: whether they replace what is there.
            part: the stretch of the storage to do this for.
        """
        for tensor, place, target in zip(self._tensors, self._places, self._rows):
            gradient = gradients.get(tensor)
            if gradient is None and not first:
                continue
            rows = slice(*_bounds(part, place.start, place.stop, units=len(target)))
            if gradient is None:
                target[rows] = 0
            elif first:
                target[rows] = gradient.reshape(target.shape)[rows]
            else:
                target[rows] += gradient.reshape(target.shape)[rows]

    def gather(self, gradients: Mapping[Tensor, Array], *, first: bool, put: Callable[..., None]) -> None:
        """As `accumulate`, by a function: `put(gradient, out, add=...)` for each, with `out` its flat place."""
        for tensor, place in zip(self._tensors, self._places):
            gradient = gradients.get(tensor)
            if gradient is not None:
                put(gradient, self.gradients[place], add=not first)
            elif first:
                self.gradients[place] = 0

    def gradient_square(self, part: slice = EVERYTHING) -> float:
        """The sum of the squares of all gradients in a stretch of the storage; not finite if any of them is not."""
        return float(self.gradients[part] @ self.gradients[part])

    def gradient_norm(self) -> float:
        """The Euclidean norm of all gradients together."""
        return math.sqrt(self.gradient_square())


def _bounds(part: slice, start: int, stop: int, *, units: int) -> tuple[int, int]:
    """Of what lies from start to stop, in so many units: the first that begins in a part, and the last, plus one."""
    if part == EVERYTHING or start == stop or (part.start <= start and stop <= part.stop):
        return 0, units
    size = (stop - start) // units
    begin, end = (min(max(math.ceil((edge - start) / size), 0), units) for edge in (part.start, part.stop))
    return begin, end


@dataclasses.dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2).

    Attributes:
        first: running mean of the gradients, flat.
        second: running mean of their squares, flat.
        beta1: decay of `first`.
        beta2: decay of `second`.
        epsilon: added to the root of `second`.
        weight_decay: the share that a matrix loses in a step, times the learning rate without a factor of its own;
            vectors lose nothing.
    """

    first: Array
    second: Array
    beta1: float = 0.9
    beta2: float = 0.99
    epsilon: float = 1e-8
    weight_decay: float = 0.1

    @classmethod
    def of(cls, flat: FlatParameters, **settings: float) -> AdamW:
        """An optimiser whose running means start at 0."""
        xp = flat.backend
        return cls(xp.zeros_like(flat.values), xp.zeros_like(flat.values), **settings)

    def update(
        self,
        flat: FlatParameters,
        *,
        learning_rate: float,
        step: int,
        gradient_scale: float = 1.0,
        part: slice = EVERYTHING,
    ) -> None:
        """Move the parameters one step along their gradients, with the backend's kernel where it has one.

        Args:
            flat: the parameters and their gradients.
            learning_rate: of this step.
            step: counted from 1.
            gradient_scale: factor on the gradients; below 1 where they are clipped.
            part: the stretch of the storage to do this for.
        """
        update = flat.backend.updates.get("adamw", adamw)
        for group, factor in flat.groups:
            begin, end = _bounds(part, group.start, group.stop, units=group.stop - group.start)
            place = slice(group.start + begin, group.start + end)
            update(
                flat.values[place],
                flat.gradients[place],
                self.first[place],
                self.second[place],
                learning_rate=learning_rate * factor,
                beta1=self.beta1,
                beta2=self.beta2,
                epsilon=self.epsilon,
                weight_decay=self.weight_decay / factor,
                decay_end=min(max(flat.decay_end, place.start), place.stop) - place.start,
                step=step,
                gradient_scale=gradient_scale,
            )
            if flat.working is not None:
                flat.working[place] = flat.values[place]


def clip_scale(norm: float, clip: float) -> float:
    """The factor that brings a gradient's norm down to `clip`; 1 where it is smaller, or `clip` is 0."""
    return clip / norm if 0 < clip < norm else 1.0


def adamw(
    parameters: Array,
    gradients: Array,
    first: Array,
    second: Array,
    *,
    learning_rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
    decay_end: int,
    step: int,
    gradient_scale: float = 1.0,
) -> None:
    """The update as the paper writes it, in place: the definition that a backend's kernel is tested against.

    The running means start at 0 and so are too small at first; dividing by 1 - beta**step corrects that
    (Kingma & Ba 2015, §3).

    Args:
        parameters: flat; updated.
        gradients: flat; left alone.
        first: running mean of the gradients; updated.
        second: running mean of their squares; updated.
        learning_rate: of this step.
        beta1: decay of `first`.
        beta2: decay of `second`.
        epsilon: keeps the quotient finite.
        weight_decay: share of a parameter that is taken away, times the learning rate.
        decay_end: how many parameters, from the front, decay.
        step: counted from 1.
        gradient_scale: factor on the gradients.
    """
    gradients = gradients * gradient_scale
    first[...] = beta1 * first + (1 - beta1) * gradients
    second[...] = beta2 * second + (1 - beta2) * gradients * gradients
    mean = first / (1 - beta1**step)
    root = (second / (1 - beta2**step)) ** 0.5
    parameters[:decay_end] *= 1 - learning_rate * weight_decay
    parameters -= learning_rate * mean / (root + epsilon)
