"""Learning-rate schedules as pure functions of the step: a rise to the peak, then one of four ways down.

Read before: `config.py`. Read next: `optimizer.py`, which takes the rate.
"""

from __future__ import annotations

import math

from ..errors import UsageError


def learning_rate(
    step: int,
    *,
    peak: float,
    steps: int,
    warmup: int = 0,
    schedule: str = "cosine",
    minimum_ratio: float = 0.0,
) -> float:
    """The learning rate of a step, counted from 0, where the rate is 0 if there is a warm-up.

    Linear from 0 to the peak over `warmup` steps; then, until `steps`, along half a cosine (Loshchilov &
    Hutter 2017, eq. 5) or a line to `minimum_ratio * peak`, or constant, or with 1/sqrt(step) (Vaswani
    2017, §5.3). Past `steps` it stays where it ended.

    A trainer that counts its steps from 1 and asks for `learning_rate(step, steps=steps + 1)` wastes no
    step on a rate of 0, neither the first nor the last.

    Args:
        step: 0, 1, ...
        peak: the largest rate, reached at step `warmup`.
        steps: where a cosine or linear schedule ends.
        warmup: steps of the rise.
        schedule: "cosine", "linear", "constant" or "inverse-square-root".
        minimum_ratio: the end of a cosine or linear schedule, as a part of the peak.

    Raises:
        UsageError: the schedule is unknown.
    """
    if step < warmup:
        return peak * step / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    if schedule == "cosine":
        left = (1 + math.cos(math.pi * progress)) / 2
    elif schedule == "linear":
        left = 1 - progress
    elif schedule == "constant":
        return peak
    elif schedule == "inverse-square-root":
        return peak * math.sqrt(max(1, warmup) / max(1, step))
    else:
        raise UsageError(f"unknown schedule {schedule!r}; use cosine, linear, constant or inverse-square-root")
    return peak * (minimum_ratio + (1 - minimum_ratio) * left)
