"""What a step does with its gradient when the host does not look: composed of array operations, and so the definition
of a backend's kernels of the same names.

Each number that differs between two steps is in an array: `numbers` holds the learning rate, 1 - β₁ⁿ and 1 - β₂ⁿ for
step n, and the largest norm of the gradient, 0 for any. `outcome` holds the gradient's norm, the factor that clips it,
and 1 where the weights may be updated, else 0.

Read before: `optimizer.py`, whose update this is. Read next: `device_step.py`.
"""

from __future__ import annotations

import types
from typing import Any

from .. import backends
from .optimizer import FlatParameters

Array = Any


def of(flat: FlatParameters) -> Any:
    """`judge`, `gather` and `adamw_recorded` for that storage: the backend's where it has them, else those below."""
    own = {"judge": judge, "gather": gather, "adamw_recorded": adamw_recorded}
    xp = flat.backend
    kernels = xp.updates if flat.values.dtype == xp.float32 else {}
    return types.SimpleNamespace(**{name: kernels.get(name, function) for name, function in own.items()})


def gather(gradient: Array, out: Array, *, add: bool) -> None:
    """Put a gradient into its place, or add it to what is there.

    Args:
        gradient: of any shape and real dtype.
        out: as many numbers, flat; updated.
        add: whether it is added.
    """
    xp = backends.of(out)
    gradient = xp.astype(xp.reshape(gradient, out.shape), out.dtype)
    out[...] = out + gradient if add else gradient


def judge(gradients: Array, loss: Array, numbers: Array) -> Array:
    """Whether a step is to be taken, and how long it may be: the outcome.

    Args:
        gradients: of everything, flat, before clipping.
        loss: a scalar.
        numbers: see above.
    """
    xp, clip = backends.of(gradients), numbers[3]
    norm = xp.sqrt(xp.sum(gradients * gradients))
    one, loss = xp.ones_like(norm), xp.astype(loss, norm.dtype)
    finite = xp.logical_and(xp.isfinite(norm), xp.isfinite(loss))
    clipped = xp.logical_and(clip > 0, norm > clip)
    factor = xp.where(clipped, clip / xp.where(clipped, norm, one), one)
    return xp.stack([norm, factor, xp.astype(finite, norm.dtype)])


def adamw_recorded(
    parameters: Array,
    gradients: Array,
    first: Array,
    second: Array,
    working: Array | None = None,
    *,
    numbers: Array,
    outcome: Array,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
    decay_end: int,
    rate: float = 1.0,
) -> None:
    """The update of `optimizer.adamw`, in place; nothing where the outcome forbids it.

    Args:
        parameters: flat; updated.
        gradients: flat; left alone.
        first: running mean of the gradients; updated.
        second: running mean of their squares; updated.
        working: flat: gets the parameters in its own dtype; or None.
        numbers: see above.
        outcome: from `judge`.
        beta1: decay of `first`.
        beta2: decay of `second`.
        epsilon: added to the root of `second`.
        weight_decay: share of a parameter that is taken away, times the learning rate.
        decay_end: how many parameters, from the front, decay.
        rate: factor on the learning rate.
    """
    xp, learning_rate, allowed = backends.of(parameters), numbers[0] * rate, outcome[2] > 0
    g = gradients * outcome[1]
    mean = beta1 * first + (1 - beta1) * g
    square = beta2 * second + (1 - beta2) * g * g
    decays = xp.astype(xp.arange(parameters.shape[0]) < decay_end, parameters.dtype)
    kept = parameters * (1 - learning_rate * weight_decay * decays)
    moved = kept - learning_rate * (mean / numbers[1]) / (xp.sqrt(square / numbers[2]) + epsilon)
    for old, new in ((parameters, moved), (first, mean), (second, square)):
        old[...] = xp.where(allowed, new, old)
    if working is not None:
        working[...] = xp.astype(parameters, working.dtype)
