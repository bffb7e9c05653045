"""A step on several devices of one process: each has the whole model, and takes some rows of the batch.

Each device finds the gradient of its rows; these are added up, so that all devices hold the same sum, to the last bit;
and each updates its own weights with it. So the weights stay the same everywhere, and are never sent.

Read before: `device_step.py`. Read next: `backends/cupy/collective.py`, `loop.py`.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np

from .. import models
from ..tensor import Array
from .device_step import ROWS, DeviceStep, Replica
from .optimizer import AdamW, FlatParameters


class SharedStep(DeviceStep):
    """Training steps of one model, whose batches several devices share.

    The model and its storage live on device 0, and are what is saved; the other devices take over their state at the
    first step.

    Args:
        model: whose parameters `flat` holds.
        objective: gives the loss.
        flat: parameters and gradients.
        optimizer: changes the parameters.
        devices: how many, at least 2; a batch must have as many rows.
        micros: forward passes, one after the other, to cut each device's rows into.
        rounding: of the products of float32 matrices.
        settings: further arguments of `DeviceStep`.
    """

    def __init__(
        self,
        model: Any,
        objective: Any,
        flat: FlatParameters,
        optimizer: AdamW,
        *,
        devices: int,
        micros: int = 1,
        rounding: str = "float32",
        **settings: Any,
    ) -> None:
        super().__init__(model, objective, flat, optimizer, micros=micros, rounding=rounding, **settings)
        xp = self._xp
        self.replicas, self._losses, self._gradients, self._moves = [self._first], [], [], []
        for device in range(devices):
            with xp.on(device):
                if device:
                    parts = _another(model, flat, optimizer)
                    other = Replica(parts[0], objective, *parts[1:], micros=micros, rounding=rounding)
                    self.replicas.append(other)
                self._losses.append(xp.zeros(1, dtype=flat.values.dtype))
                self._gradients.append(self._recorded(self._gradient_on(device)))
                self._moves.append(self._recorded(self._move_on(device)))
        self._alike = False

    def _gradient_on(self, device: int) -> Any:
        def gradient(arrays: dict[str, Array]) -> dict[str, Array]:
            self._losses[device][...] = self.replicas[device].gradient(arrays)
            return {}

        return gradient

    def _move_on(self, device: int) -> Any:
        def move(arrays: dict[str, Array]) -> dict[str, Array]:
            return {"found": self.replicas[device].update(self._losses[device][0], arrays["numbers"])}

        return move

    def _begin(self, prepared: dict[str, np.ndarray], numbers: np.ndarray) -> Array:
        xp, count = self._xp, len(self.replicas)
        if not self._alike:
            self._take_over()
        rows = next(iter(prepared.values())).shape[0]
        ends = [rows * i // count for i in range(count + 1)]
        for device, (begin, end) in enumerate(itertools.pairwise(ends)):
            part = {name: array[begin:end] for name, array in prepared.items()}
            with xp.on(device):
                self._gradients[device](part | {ROWS: np.empty((rows, 0), np.uint8)})
        xp.add_up([replica.flat.gradients for replica in self.replicas])
        xp.add_up(self._losses)
        found = []
        for device, move in enumerate(self._moves):
            with xp.on(device):
                found.append(move({"numbers": numbers})["found"])
        return found[0]

    def _take_over(self) -> None:
        """Give the other devices the state of the first one."""
        states = [_state(replica) for replica in self.replicas]
        for source, *targets in zip(*states, strict=True):
            self._xp.copy(source, targets)
        self._alike = True


def _state(replica: Replica) -> list[Array]:
    arrays = replica.flat.values, replica.flat.working, replica.optimizer.first, replica.optimizer.second
    return [array for array in arrays if array is not None]


def _another(model: Any, flat: FlatParameters, optimizer: AdamW) -> tuple[Any, FlatParameters, AdamW]:
    """A model like this one with storage of the same layout, on the device that is current; all zeros."""
    dtype = np.dtype(flat.values.dtype).name
    other = models.build(model.config, backend=flat.backend.name, dtype=dtype, seed=None)
    parameters = other.parameters()
    storage = FlatParameters({name: parameters[name] for name in flat.names}, flat.rates, working=flat.working_dtype)
    means = {name: flat.backend.zeros_like(storage.values) for name in ("first", "second")}
    return other, storage, dataclasses.replace(optimizer, **means)
