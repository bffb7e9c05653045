"""What a backend provides: an array namespace with its gaps filled.

A `Backend` *is* the namespace that primitives receive as `xp`: whatever the Python array API standard (2023.12)
defines is looked up on the wrapped library, and the few things that transformers need beyond the standard are
methods here. Every one of those has a body written with the standard alone, so that any conforming library works;
a backend overrides what it can do faster.

Read next: `numpy/backend.py`, then `tinyformer/tensor.py`.
"""

from __future__ import annotations

import abc
import contextlib
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from .special import erf

Array = Any  # an array of any backend


class Kernel(NamedTuple):
    """A fast version of a composed function.

    Attributes:
        forward: `forward(xp, *arrays, **metadata) -> (out, saved)`; absent optional arrays come as None.
        backward: `backward(xp, saved, gradient) -> gradients`, one for each array argument, None where the
            argument has no gradient (integers, masks, absent ones). It runs once at most, so it may overwrite what
            `forward` made for it alone; but neither the gradient nor an input nor `out`, which others hold, too.
        supports: `supports(*arrays, **metadata) -> bool`; where it says no, the composed function runs. None: always.
    """

    forward: Callable[..., tuple[Array, Any]]
    backward: Callable[..., tuple[Array | None, ...]]
    supports: Callable[..., bool] | None = None


def of_one_dtype(x: Array, *others: Array | None, **metadata: Any) -> bool:
    """The `supports` of a kernel that NumPy would let mix precisions; the composed function says that it may not."""
    return all(other is None or other.dtype == x.dtype for other in others)


class Undrawn(abc.ABC):
    """Truth values that a kernel draws where it uses them, instead of reading them from memory.

    Kernels of the backend that made it take it in the place of an array; composed functions get what `drawn` returns.

    Attributes:
        shape: of the truth values.
    """

    shape: tuple[int, ...]

    @abc.abstractmethod
    def drawn(self) -> Array:
        """The truth values as an array."""


class Generator(Protocol):
    """A stream of random numbers that is a pure function of the integers it was made from."""

    def normal(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Standard normal numbers."""

    def keep(self, shape: tuple[int, ...], probability: float) -> Array | Undrawn:
        """True with the given probability, in steps of 2⁻¹⁶: the mask of a dropout."""


class Backend:
    """An array library seen through the array API, with scatter-add, erf, random streams and kernels.

    Attributes:
        name: how a user names it, such as "numpy".
        kernels: fast versions of composed functions, by the function's name.
        updates: in-place updates of flat arrays, by name, for `tinyformer/training/optimizer.py`.
        alignment: bytes that the place of an array within a larger one should be a multiple of, for kernels to be fast.
    """

    name = "array-api"
    alignment = 1

    def __init__(self, namespace: Any) -> None:
        self._namespace = namespace
        self.kernels: dict[str, Kernel] = {}
        self.updates: dict[str, Callable[..., None]] = {}

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._namespace, attribute)
        setattr(self, attribute, value)  # the next look-up is an ordinary one
        return value

    def __repr__(self) -> str:
        return f"<backend {self.name}>"

    def rounding(self, precision: str) -> AbstractContextManager[None]:
        """Inside, products of float32 matrices may round their factors to this precision: "float32" or "tf32"."""
        return contextlib.nullcontext()

    def recorded(
        self, function: Callable[..., Any], *, record: bool = True, warn: Callable[[str], None] | None = None
    ) -> Callable[..., Any]:
        """A function of arrays that a backend may record once, and replay without the host's work.

        Args:
            function: `function(arrays) -> arrays`, both dictionaries. What it does must be a function of the contents
                of the arrays it is given, and of arrays that stay in their places; it may write into those, and
                everything else must be the same in each call whose arrays have the same shapes and dtypes.
            record: False runs it anew in each call, with the same result.
            warn: told, in a sentence, where it cannot be recorded and so runs anew in each call.

        Returns:
            The same, of arrays on the host. What it returns is overwritten by the next call.
        """
        return lambda arrays: function({name: self.from_host(array) for name, array in arrays.items()})

    def devices(self) -> int:
        """How many there are that arrays can live on."""
        return 1

    def on(self, device: int) -> AbstractContextManager[Any]:
        """Inside, arrays are made, and kernels run, on the device of this number, counted from 0."""
        return contextlib.nullcontext()

    def copy(self, source: Array, targets: list[Array]) -> None:
        """Put the numbers of an array into others of its shape and dtype, which may live on other devices."""
        for target in targets:
            target[...] = source

    def add_up(self, arrays: list[Array]) -> None:
        """Replace arrays of one shape, each on a device of its own, by their sum, so that all have the same bits."""
        total = arrays[0]
        for array in arrays[1:]:
            total = total + array
        self.copy(total, arrays)

    def from_host(self, array: Any, dtype: Any = None) -> Array:
        """A NumPy array, a list or a number as an array of this backend."""
        return self._namespace.asarray(array, dtype=dtype)

    def to_host(self, array: Array) -> Any:
        """An array of this backend as a NumPy array."""
        import numpy

        return numpy.asarray(array)

    def is_floating(self, array: Array) -> bool:
        """Whether the array holds real numbers, and so can have a gradient."""
        return self._namespace.isdtype(array.dtype, "real floating")

    def check_indices(self, indices: Array, size: int, what: str) -> None:
        """Raise unless the indices are integers (TypeError) in [0, size) (IndexError); `what` names them."""
        if not self.isdtype(indices.dtype, "integral"):
            raise TypeError(f"{what} must be integers, and these are {indices.dtype}")
        if 0 not in indices.shape:
            low, high = int(self.min(indices)), int(self.max(indices))
            if low < 0 or high >= size:
                raise IndexError(f"{what} run from {low} to {high}, and must lie in 0 to {size - 1}")

    def erf(self, x: Array) -> Array:
        """The error function, element by element."""
        return erf(self._namespace, x)

    def scatter_add(self, shape: tuple[int, ...], indices: Array, values: Array) -> Array:
        """Rows added up where their indices say: out[indices[i]] += values[i], the gradient of a look-up.

        Args:
            shape: of the result, `v ...`.
            indices: integers in [0, v), `n`.
            values: `n ...`.
        """
        xp = self._namespace
        selects = xp.arange(shape[0], dtype=indices.dtype)[:, None] == indices[None, :]
        flat = xp.reshape(values, (values.shape[0], math.prod(shape[1:])))
        return xp.reshape(xp.astype(selects, values.dtype) @ flat, shape)

    def generator(self, seed: int, *stream: int, rows: range | None = None) -> Generator:
        """The random stream that belongs to these integers: the same ones give the same numbers, always.

        Args:
            seed: of the run.
            stream: further integers, such as the step.
            rows: numbers of rows, for arrays whose first axis they are. Each row has a stream of its own, so that its
                numbers do not depend on which other rows are drawn with it.
        """
        from .numpy.random import HostGenerator

        return HostGenerator(self, seed, *stream, rows=rows)

    def keys(self, seed: int, *stream: int, rows: range | None = None) -> Any:
        """What the streams of `generator` are made from, as a NumPy array: uint64, `rows 2`, one row without `rows`."""
        from .numpy.random import keys

        return keys(seed, *stream, rows=rows)

    def generator_of(self, keys: Array) -> Generator:
        """The same streams from their keys, for a function that is `recorded`, to which the keys come as an array.

        Args:
            keys: from `keys`, as an array of this backend. Each belongs to one row of the arrays that are drawn; a
                single one may draw arrays of any shape.
        """
        from .numpy.random import HostGenerator

        return HostGenerator.of(self, self.to_host(keys))
