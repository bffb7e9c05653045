"""One training step that a device takes by itself: the host says what to do, and looks at the outcome when it wants to.

Whatever the host waits for leaves a GPU idle, and whatever it does between two kernels may. So a step's work is one
function of arrays, which a backend may record and replay (`Backend.recorded`): gradient, norm, clipping and update,
and also the decision that a step which is not finite updates nothing. What differs between two steps, such as the
learning rate and the keys of dropout, is in the arrays. While the device works, the host prepares the next batch.

Read before: `step.py`, which does the same on the CPU. Read next: `loop.py`, `backends/cupy/graphs.py`.
"""

from __future__ import annotations

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
        self._model, self._objective, self._flat, self._optimizer = model, objective, flat, optimizer
        self._micros, self._clip, self._seed, self._rounding = micros, clip, seed, rounding
        self._updates = updates.of(flat)
        self._run = flat.backend.recorded(self._step, record=record, warn=warn)
        self._found: Array | None = None

    def prepare(self, batch: Batch, step: int) -> dict[str, np.ndarray]:
        """What a step needs of its batch, on the host: work that may be done while the device does its own.

        Args:
            batch: the rows of the step.
            step: counted from 1.
        """
        arrays = {_BATCH + name: array for name, array in self._objective.fixed(batch).arrays.items()}
        if self._model.config.dropout:
            arrays["keys"] = self._flat.backend.keys(self._seed, DROPOUT, step, rows=range(len(batch)))
        return arrays

    def start(self, prepared: dict[str, np.ndarray], *, learning_rate: float, step: int) -> None:
        """Have the device begin, without waiting for it.

        Args:
            prepared: from `prepare` for this step.
            learning_rate: of this step.
            step: counted from 1.
        """
        beta1, beta2 = self._optimizer.beta1, self._optimizer.beta2
        numbers = np.array([learning_rate, 1 - beta1**step, 1 - beta2**step, self._clip], self._flat.values.dtype)
        self._found = self._run(prepared | {"numbers": numbers})["found"]

    def finish(self) -> Outcome:
        """Wait for the step that was started last, and tell what it did."""
        loss, norm = self._flat.backend.to_host(self._found).tolist()[:2]
        return Outcome(loss, norm, math.isfinite(loss) and math.isfinite(norm))

    def _step(self, arrays: dict[str, Array]) -> dict[str, Array]:
        """The whole step, without a look at any number: `found` are the loss, the gradient's norm, and two more."""
        flat, optimizer, numbers = self._flat, self._optimizer, arrays["numbers"]
        xp = flat.backend
        with xp.rounding(self._rounding):
            loss = self._gradient(arrays)
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
                weight_decay=optimizer.weight_decay,
                decay_end=min(max(flat.decay_end, place.start), place.stop) - place.start,
                rate=factor,
            )
        return {"found": xp.concat([xp.reshape(loss, (1,)), outcome])}

    def _gradient(self, arrays: dict[str, Array]) -> Array:
        """Put the gradient of the batch's mean loss into the flat storage; the loss, a scalar."""
        flat = self._flat
        given = {name.removeprefix(_BATCH): array for name, array in arrays.items() if name.startswith(_BATCH)}
        whole = Batch(**given, total=1.0 if "weights" in given else None)  # see `Batch.normalised`
        total, row = None, 0
        for part in split(whole, self._micros):
            rows, row = slice(row, row + len(part)), row + len(part)
            rng = flat.backend.generator_of(arrays["keys"][rows]) if "keys" in arrays else None
            loss = self._objective.loss(self._model, part, whole=whole, rng=rng)
            flat.gather(backward(loss), first=total is None, put=self._updates.gather)
            total = loss.array if total is None else total + loss.array
        return total
