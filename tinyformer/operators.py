"""The operators and methods of Tensor, each a primitive of `ops.py`.

A Python number is folded into the operation and keeps the tensor's dtype, and so does NumPy's float64 scalar, which is
a Python float as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import functional, ops
from .tensor import Tensor


def _plain(x: Any) -> Any:
    """NumPy's float64 scalars as Python floats; everything else as it is."""
    return float(x) if isinstance(x, float) else x


def _multiply(x: Tensor, other: Any) -> Tensor:
    return ops.scale(x, factor=_plain(other)) if isinstance(other, int | float) else ops.multiply(x, other)


def _divide(x: Tensor, other: Any) -> Tensor:
    if isinstance(other, int | float) and other:
        return ops.scale(x, factor=1.0 / float(other))
    return ops.divide(x, _plain(other))


def _reshape(x: Tensor, *shape: Any) -> Tensor:
    return ops.reshape(x, shape=shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape)


def _iterate(x: Tensor) -> Iterator[Tensor]:
    return (x[i] for i in range(len(x)))


Tensor.__add__ = Tensor.__radd__ = lambda x, other: ops.add(x, _plain(other))
Tensor.__sub__ = lambda x, other: ops.subtract(x, _plain(other))
Tensor.__rsub__ = lambda x, other: ops.subtract(_plain(other), x)
Tensor.__mul__ = Tensor.__rmul__ = _multiply
Tensor.__truediv__ = _divide
Tensor.__rtruediv__ = lambda x, other: ops.power(x, exponent=-1) * other
Tensor.__pow__ = lambda x, exponent: ops.power(x, exponent=_plain(exponent))
Tensor.__neg__ = ops.negative
Tensor.__abs__ = ops.absolute
Tensor.__matmul__ = ops.matmul
Tensor.__rmatmul__ = lambda x, other: ops.matmul(other, x)
Tensor.__getitem__ = lambda x, key: ops.getitem(x, key=key)
Tensor.__iter__ = _iterate
Tensor.__float__ = lambda x: float(x.item())
Tensor.reshape = _reshape
Tensor.T = property(lambda x: ops.permute_dims(x, axes=tuple(reversed(range(x.ndim)))))
Tensor.sum, Tensor.max, Tensor.mean = ops.sum, ops.max, functional.mean
Tensor.exp, Tensor.log, Tensor.sqrt, Tensor.tanh = ops.exp, ops.log, ops.sqrt, ops.tanh
Tensor.astype = lambda x, dtype: ops.astype(x, dtype=dtype)
