"""Telling a transformer where a token stands: attention alone treats its input as a set.

Learned positions are an `Embedding`; here are the two kinds that need no parameters.

Read before: `layers.py`. Read next: `attention.py`.
"""

from __future__ import annotations

from typing import Any

from ..tensor import Array


def _angles(xp: Any, positions: Array, pairs: int, base: float, dtype: Any) -> Array:
    """Position times frequency, `t pairs`; the wavelengths grow geometrically from 2π to 2π base."""
    powers = xp.arange(pairs, dtype=xp.float64) / pairs
    return xp.astype(xp.astype(positions, xp.float64)[:, None] * base**-powers, dtype)


def sinusoidal(xp: Any, positions: Array, width: int, dtype: Any) -> Array:
    """Sines and cosines of growing wavelength, added to the embeddings (Vaswani 2017, §3.5).

    Args:
        xp: the array namespace.
        positions: integers, `t`.
        width: of the model, even.
        dtype: of the result.

    Returns:
        `t d`: sines in the even channels, cosines in the odd ones.
    """
    angles = _angles(xp, positions, width // 2, 10000.0, dtype)
    return xp.reshape(xp.stack((xp.sin(angles), xp.cos(angles)), axis=-1), (positions.shape[0], width))


def rotary_angles(xp: Any, positions: Array, width: int, dtype: Any, *, base: float = 10000.0) -> tuple[Array, Array]:
    """Cosines and sines for `functional.rotary` (Su 2021, §3.4.2).

    Args:
        xp: the array namespace.
        positions: integers, `t`.
        width: of a head, even.
        dtype: of the result.
        base: of the wavelengths.

    Returns:
        Two arrays `t c/2`.
    """
    angles = _angles(xp, positions, width // 2, base, dtype)
    return xp.cos(angles), xp.sin(angles)
