"""The error function, which the array API standard lacks.

Written with the standard alone, so it serves NumPy and every other library that has no erf of its own.
"""

from __future__ import annotations

import math
from typing import Any

# Numerator and denominator of W. J. Cody's rational minimax approximations (Math. Comp. 23, 1969), lowest power
# first: erf(x)/x in x² up to |x| = 0.5, then exp(x²) erfc(|x|) in |x| up to 4, then the asymptotic form in 1/x².
_NEAR = (
    (
        3209.37758913846947,
        377.485237685302021,
        113.864154151050156,
        3.16112374387056560,
        0.185777706184603153,
    ),
    (2844.23683343917062, 1282.61652607737228, 244.024637934444173, 23.6012909523441209, 1.0),
)
_MIDDLE = (
    (
        1230.33935479799725,
        2051.07837782607147,
        1712.04761263407058,
        881.952221241769090,
        298.635138197400131,
        66.1191906371416295,
        8.88314979438837594,
        0.564188496988670089,
        2.15311535474403846e-8,
    ),
    (
        1230.33935480374942,
        3439.36767414372164,
        4362.61909014324716,
        3290.79923573345963,
        1621.38957456669019,
        537.181101862009858,
        117.693950891312499,
        15.7449261107098347,
        1.0,
    ),
)
_FAR = (
    (
        6.58749161529837803e-4,
        0.0160837851487422766,
        0.125781726111229246,
        0.360344899949804439,
        0.305326634961232344,
        0.0163153871373020978,
    ),
    (
        0.00233520497626869185,
        0.0605183413124413191,
        0.527905102951428412,
        1.87295284992346725,
        2.56852019228982242,
        1.0,
    ),
)


def _ratio(x: Any, coefficients: tuple[tuple[float, ...], tuple[float, ...]]) -> Any:
    """The quotient of two polynomials, by Horner's rule."""
    numerator, denominator = (_horner(x, powers) for powers in coefficients)
    return numerator / denominator


def _horner(x: Any, powers: tuple[float, ...]) -> Any:
    total = x * powers[-1] + powers[-2]
    for coefficient in reversed(powers[:-2]):
        total = total * x + coefficient
    return total


def erf(xp: Any, x: Any) -> Any:
    """erf(x) = 2/√π ∫₀ˣ exp(-t²) dt, element by element, within a few units of the last place of float64.

    Args:
        xp: an array namespace.
        x: real numbers of any shape.
    """
    size = xp.abs(x)
    # Each formula is evaluated on arguments held inside its own interval, so that no branch overflows.
    near = xp.where(size < 0.5, x, xp.zeros_like(x))
    near = near * _ratio(near * near, _NEAR)
    middle = xp.clip(size, 0.5, 4.0)
    middle = 1.0 - xp.exp(-middle * middle) * _ratio(middle, _MIDDLE)
    far = xp.clip(size, 4.0, 6.0)  # beyond 6, erf is 1 in float64
    inverse = 1.0 / (far * far)
    far = 1.0 - xp.exp(-far * far) / far * (1.0 / math.sqrt(math.pi) - inverse * _ratio(inverse, _FAR))
    outer = xp.where(size <= 4.0, middle, far)
    result = xp.where(size < 0.5, near, xp.where(x < 0, -outer, outer))
    return xp.where(xp.isnan(x), x, result)
