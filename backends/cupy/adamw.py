"""AdamW over flat arrays on the device, for a step that the host directs, and for one that is recorded.

A recorded step is replayed as it is, so its numbers lie on the device: `step_numbers` makes them on the host, `judge`
finds out whether the step is to be taken and by which factor its gradient is clipped, and `adamw_recorded` obeys.
Weights, gradients and running means are float32, whatever the model computes in.

Read before: `kernels.py`, `tinyformer/training/optimizer.py`. Read next: `adamw.cu`, `graphs.py`.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from .launch import REALS, Source

_SOURCE = Source("adamw.cu")
_FLOAT = np.dtype(np.float32)
_THREADS = 256
_PARTS = 1024  # blocks that share a sum: several for each multiprocessor of the largest device


def step_numbers(*, learning_rate: float, beta1: float, beta2: float, step: int, clip: float = 0.0) -> np.ndarray:
    """What of a step changes from one to the next, on the host: 4 float32, to be sent to the device.

    Args:
        learning_rate: of this step.
        beta1: decay of the gradients' running mean.
        beta2: decay of their squares'.
        step: counted from 1.
        clip: largest norm of the gradient; 0 for any.
    """
    return np.array([learning_rate, 1.0 - beta1**step, 1.0 - beta2**step, clip], np.float32)


def judge(gradients: Any, loss: Any, numbers: Any) -> Any:
    """Whether a step is to be taken, without the host.

    Args:
        gradients: of everything, flat, float32, before clipping.
        loss: one number; None where the gradients decide alone.
        numbers: `step_numbers`, on the device.

    Returns:
        3 float32 on the device: the gradient's norm; the factor that clips it; 1 where the norm and the loss are
        finite and so the weights may be updated, else 0.
    """
    parts = max(1, min(_PARTS, -(-gradients.size // (4 * _THREADS))))
    if loss is not None and loss.dtype != _FLOAT:
        loss = loss.astype(_FLOAT)
    partial, outcome = cupy.empty(parts, np.float32), cupy.empty(3, np.float32)
    _SOURCE.launch("square_sums", _FLOAT, parts, _THREADS, (gradients, np.int64(gradients.size), partial))
    _SOURCE.launch("judge", _FLOAT, 1, _THREADS, (partial, np.int32(parts), loss, numbers, outcome))
    return outcome


def adamw_recorded(
    parameters: Any,
    gradients: Any,
    first: Any,
    second: Any,
    working: Any = None,
    *,
    numbers: Any,
    outcome: Any,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
    decay_end: int,
    rate: float = 1.0,
) -> None:
    """The update of `adamw` in place, by numbers on the device; nothing where the outcome forbids it.

    Args:
        parameters: flat, float32; updated.
        gradients: flat, float32; left alone.
        first: running mean of the gradients, float32; updated.
        second: running mean of their squares, float32; updated.
        working: flat, float32 or bfloat16: gets a rounded copy of the parameters; or None.
        numbers: `step_numbers`, on the device.
        outcome: from `judge`.
        beta1: decay of `first`.
        beta2: decay of `second`.
        epsilon: added to the root of `second`.
        weight_decay: share of a parameter that is taken away, times the learning rate.
        decay_end: how many parameters, from the front, decay.
        rate: factor on the learning rate.
    """
    size = parameters.size
    floats = [beta1, beta2, 1.0 - beta1, 1.0 - beta2, epsilon, weight_decay, rate]
    arguments = (parameters, gradients, first, second, working, np.int64(size), np.int64(decay_end))
    dtype = _FLOAT if working is None else working.dtype
    grid = -(-size // (4 * _THREADS))
    _SOURCE.launch("adamw", dtype, grid, _THREADS, (*arguments, *map(np.float32, floats), numbers, outcome))


def adamw(
    parameters: Any,
    gradients: Any,
    first: Any,
    second: Any,
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
    """The update with everything known on the host; see `backends/numpy/adamw.py`. Its numbers cost two transfers."""
    if parameters.dtype != _FLOAT:  # a model in double precision, for gradient checks
        g = gradients * gradient_scale
        first += (1.0 - beta1) * (g - first)
        second += (1.0 - beta2) * (g * g - second)
        parameters[:decay_end] *= 1.0 - learning_rate * weight_decay
        root = cupy.sqrt(second / (1.0 - beta2**step))
        parameters -= learning_rate / (1.0 - beta1**step) * first / (root + epsilon)
        return
    numbers = step_numbers(learning_rate=learning_rate, beta1=beta1, beta2=beta2, step=step)
    settings = {"beta1": beta1, "beta2": beta2, "epsilon": epsilon, "weight_decay": weight_decay}
    outcome = cupy.asarray(np.array([0.0, gradient_scale, 1.0], np.float32))
    arrays = parameters, gradients, first, second
    adamw_recorded(*arrays, numbers=cupy.asarray(numbers), outcome=outcome, decay_end=decay_end, **settings)


def gather(gradient: Any, out: Any, *, add: bool) -> None:
    """Put a gradient into its place, or add it to what is there.

    Args:
        gradient: float32 or bfloat16, any shape.
        out: as many float32, flat and without gaps.
        add: whether it is added.
    """
    if gradient.dtype.name not in REALS:
        raise TypeError(f"gradients are float32 or bfloat16, and this is {gradient.dtype}")
    grid = -(-out.size * gradient.dtype.itemsize // (16 * _THREADS))
    arguments = (cupy.ascontiguousarray(gradient), out, np.int64(out.size), np.int32(add))
    _SOURCE.launch("gather", gradient.dtype, grid, _THREADS, arguments)
