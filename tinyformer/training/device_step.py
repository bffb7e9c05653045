"""One training step that a device takes by itself: the host says what to do, and looks at the outcome when it wants to.

Whatever the host waits for leaves a GPU idle, and whatever it does between two kernels may. So a step's work is one
function of arrays, which a backend may record and replay (`Backend.recorded`): gradient, norm, clipping and update,
and also the decision that a step which is not finite updates nothing. What differs between two steps, such as the
learning rate and the keys of dropout, is in the arrays. While the device works, the host prepares the next batch.

Read before: `step.py`, which does the same on the CPU. Read next: `loop.py`, `backends/cupy/graphs.py`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..objectives import Batch
from ..tensor import Array, backward
from . import updates
from .optimizer import AdamW, FlatParameters
from .step import DROPOUT, Outcome, split

_BATCH = "batch."  # before the names of a batch's arrays
ROWS = "rows"  # an array without elements: its length is the number of rows of all devices together


class Replica:
    """A model on a device, with all that a step changes there.

    Args:
        model: whose parameters `flat` holds.
        objective: gives the loss.
        flat: parameters and gradients.
        optimizer: changes the parameters.
        micros: forward passes, one after the other, to cut a batch into.
        rounding: of the products of float32 matrices; see `Backend.rounding`.
    """

    def __init__(
        self, model: Any, objective: Any, flat: FlatParameters, optimizer: AdamW, *, micros: int, rounding: str
    ) -> None:
        self.model, self.flat, self.optimizer = model, flat, optimizer
        self._objective, self._micros, self._rounding = objective, micros, rounding
        self._updates = updates.of(flat)

    def gradient(self, arrays: dict[str, Array]) -> Array:
        """Put the gradient of the batch's mean loss into the flat storage.

        Args:
            arrays: from `DeviceStep.prepare`.

        Returns:
            The loss, a scalar; of part of a batch, its part of the batch's loss.
        """
        flat = self.flat
        given = {name.removeprefix(_BATCH): array for name, array in arrays.items() if name.startswith(_BATCH)}
        ours = Batch(**given, total=1.0 if "weights" in given else None)  # see `Batch.normalised`
        whole = ours
        if ROWS in arrays:
            each = ours.targets.size // len(ours)  # targets of a row, where none has a weight
            total = each * arrays[ROWS].shape[0] if ours.total is None else ours.total
            whole = Batch(arrays[ROWS], ours.targets, total=total)
        loss, row = None, 0
        with flat.backend.rounding(self._rounding):
            for part in split(ours, self._micros):
                rows, row = slice(row, row + len(part)), row + len(part)
                rng = flat.backend.generator_of(arrays["keys"][rows]) if "keys" in arrays else None
                found = self._objective.loss(self.model, part, whole=whole, rng=rng)
                flat.gather(backward(found), first=loss is None, put=self._updates.gather)
                loss = found.array if loss is None else loss + found.array
        return loss

    def update(self, loss: Array, numbers: Array) -> Array:
        """Move the parameters, if loss and gradient are finite.

        Args:
            loss: of the whole batch, a scalar.
            numbers: of the step; see `updates`.

        Returns:
            The loss, the gradient's norm, and two more.
        """
        flat, optimizer, xp = self.flat, self.optimizer, self.flat.backend
        outcome = self._updates.judge(flat.gradients, loss, numbers)
        for place, factor in flat.groups:
            self._updates.adamw_recorded(
                *(array[place] for array in (flat.values, flat.gradients, optimizer.first, optimizer.second)),
                None if flat.working is None else flat.working[place],
                numbers=numbers,
                outcome=outcome,
                beta1=optimizer.beta1,
                beta2=optimizer.beta2,
                epsilon=optimizer.epsilon,
                weight_decay=optimizer.weight_decay / factor,
                decay_end=min(max(flat.decay_end, place.start), place.stop) - place.start,
                rate=factor,
            )
        return xp.concat([xp.astype(xp.reshape(loss, (1,)), outcome.dtype), outcome])


class DeviceStep:
    """Training steps of one model.

    Args:
        model: whose parameters `flat` holds.
        objective: gives the loss.
        flat: parameters and gradients.
        optimizer: changes the parameters.
        micros: forward passes, one after the other, to cut a batch into.
        clip: largest norm of the gradient; 0 for any.
        seed: of the run.
        rounding: of the products of float32 matrices; see `Backend.rounding`.
        record: let the backend record the step; without, it runs call by call, with the same result.
        warn: told, in a sentence, if the step cannot be recorded.

    Attributes:
        ahead: whether the next step should be prepared while one is going on.
    """

    ahead = True

    def __init__(
        self,
        model: Any,
        objective: Any,
        flat: FlatParameters,
        optimizer: AdamW,
        *,
        micros: int = 1,
        clip: float = 0.0,
        seed: int = 0,
        rounding: str = "float32",
        record: bool = True,
        warn: Callable[[str], None] = lambda message: None,
    ) -> None:
        self._objective, self._clip, self._seed = objective, clip, seed
        self._first = Replica(model, objective, flat, optimizer, micros=micros, rounding=rounding)
        self._xp = flat.backend
        self._recorded = functools.partial(self._xp.recorded, record=record, warn=warn)
        self._run = self._recorded(self._step)
        self._found: Array | None = None

    def prepare(self, batch: Batch, step: int) -> dict[str, np.ndarray]:
        """What a step needs of its batch, on the host: work that may be done while the device does its own.

        Args:
            batch: the rows of the step.
            step: counted from 1.
        """
        arrays = {_BATCH + name: array for name, array in self._objective.fixed(batch).arrays.items()}
        if self._first.model.config.dropout:
            arrays["keys"] = self._xp.keys(self._seed, DROPOUT, step, rows=range(len(batch)))
        return arrays

    def start(self, prepared: dict[str, np.ndarray], *, learning_rate: float, step: int) -> None:
        """Have the device begin, without waiting for it.

        Args:
            prepared: from `prepare` for this step.
            learning_rate: of this step.
            step: counted from 1.
        """
        self._found = self._begin(prepared, self._numbers(learning_rate, step))

    def finish(self) -> Outcome:
        """Wait for the step that was started last, and tell what it did."""
        loss, norm = self._xp.to_host(self._found).tolist()[:2]
        return Outcome(loss, norm, math.isfinite(loss) and math.isfinite(norm))

    def _numbers(self, learning_rate: float, step: int) -> np.ndarray:
        beta1, beta2 = self._first.optimizer.beta1, self._first.optimizer.beta2
        numbers = [learning_rate, 1 - beta1**step, 1 - beta2**step, self._clip]
        return np.array(numbers, self._first.flat.values.dtype)

    def _begin(self, prepared: dict[str, np.ndarray], numbers: np.ndarray) -> Array:
        return self._run(prepared | {"numbers": numbers})["found"]

    def _step(self, arrays: dict[str, Array]) -> dict[str, Array]:
        """The whole step, without a look at any number."""
        return {"found": self._first.update(self._first.gradient(arrays), arrays["numbers"])}
