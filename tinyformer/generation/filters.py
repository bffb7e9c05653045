"""From logits to the distribution that is sampled: penalty, temperature, top-k, top-p.

Each filter is a pure function on rows of host-side logits, `b v` -> `b v`; a token that is filtered out has
logit -inf. Read next: `strategies.py`, which applies them in this order.
"""

import numpy as np


def penalise_repetition(logits: np.ndarray, seen: np.ndarray, penalty: float) -> np.ndarray:
    """Weaken the tokens that a row has seen already (CTRL: Keskar 2019, §4.1).

    The paper divides the logit of a seen token by the penalty. That would strengthen a negative logit, so
    those are multiplied, as the implementations in use do.

    Args:
        logits: `b v`.
        seen: True where the row has seen the token, `b v`.
        penalty: above 1 weakens, 1 changes nothing.
    """
    if penalty == 1:
        return logits
    penalty = min(max(penalty, 1e-9), 1e9)  # far beyond what any probability shows, and float32 holds the product
    weakened = np.where(logits > 0, logits / penalty, logits * penalty)
    return np.where(seen, weakened, logits)


def keep_top_k(logits: np.ndarray, k: int) -> np.ndarray:
    """Keep exactly the k largest logits of each row; of equal ones the smaller token id (Fan 2018, §5)."""
    size = logits.shape[-1]
    if k >= size:
        return logits
    return _keep(logits, np.partition(logits, size - k, axis=-1)[:, size - k, None], k)


def keep_top_p(logits: np.ndarray, p: float) -> np.ndarray:
    """Keep each row's smallest set of likeliest tokens with probability >= p (Holtzman 2020, §3.1)."""
    if p >= 1:
        return logits
    descending = np.sort(logits, axis=-1)[:, ::-1]
    reached = np.cumsum(np.exp(log_softmax(descending)), axis=-1) >= p
    reached[:, -1] = True  # rounding may leave the sum of all just below p
    last = reached.argmax(axis=-1)[:, None]
    return _keep(logits, np.take_along_axis(descending, last, axis=-1), last + 1)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities in float64, `b v` -> `b v`; -inf stays -inf."""
    shifted = logits.astype(np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def draw(logits: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Sample one token per row by inverting the cumulative distribution.

    Args:
        logits: `b v`.
        uniform: one number in [0, 1) per row, `b`. A row's token depends on its own number alone.

    Returns:
        Token ids, `b`.
    """
    cumulative = np.cumsum(np.exp(log_softmax(logits)), axis=-1)
    # The total is 1 up to rounding; staying strictly below it never picks a token of probability 0.
    target = np.minimum(uniform * cumulative[:, -1], np.nextafter(cumulative[:, -1], 0))
    return (cumulative <= target[:, None]).sum(axis=-1)


def _keep(logits: np.ndarray, threshold: np.ndarray, count: np.ndarray | int) -> np.ndarray:
    """Keep what is above each row's threshold, and of what equals it the first, up to `count` in all."""
    above, equal = logits > threshold, logits == threshold
    wanted = count - above.sum(axis=-1, keepdims=True)
    return np.where(above | (equal & (equal.cumsum(axis=-1) <= wanted)), logits, -np.inf)
