"""Cross-entropy, whose gradient is formed along with it.

Read before: `kernels.py`.
"""

from __future__ import annotations

import numpy as np

from ..contract import Kernel


def _cross_entropy_forward(xp, logits, targets, weights, *, total, smoothing):
    """The loss, and in the array that held the exponentials, its gradient: (softmax - wanted) weight / total."""
    size = logits.shape[-1]
    xp.check_indices(targets, size, "targets")
    rows, targets = logits.reshape(targets.size, size), targets.reshape(-1)
    each = np.arange(targets.size)
    shift = rows.max(axis=1, keepdims=True)
    gradient = rows - shift
    wanted = gradient[each, targets] * (1.0 - smoothing)
    if smoothing:
        wanted += gradient.mean(axis=1) * smoothing
    np.exp(gradient, out=gradient)
    sums = gradient @ np.ones((size, 1), rows.dtype)
    weights = np.ones(targets.size, rows.dtype) if weights is None else weights.reshape(-1).astype(rows.dtype)
    total = float(weights.sum(dtype=np.float64)) if total is None else total
    if total == 0:
        raise ValueError("no target has a weight, so there is no mean loss")
    weights = weights / rows.dtype.type(total)
    loss = np.dot(np.log(sums[:, 0]) - wanted, weights)
    gradient *= weights[:, None] / sums
    if smoothing:
        gradient -= weights[:, None] * (smoothing / size)
    gradient[each, targets] -= weights * (1.0 - smoothing)
    return loss, gradient.reshape(logits.shape)


def _cross_entropy_backward(xp, gradient, g):
    return (gradient if g == 1.0 else gradient * g), None, None


cross_entropy = Kernel(_cross_entropy_forward, _cross_entropy_backward)
