"""Modules hold parameters as attributes; a parameter's name is the path of attributes to it.

`model.blocks[0].attention.query.weight` is the parameter "blocks.0.attention.query.weight". Nothing is registered:
`parameters` looks at what is there. An `Initializer` makes the parameters, so a model lives on the backend and in the
dtype of the one that it was given.

Read before: `tinyformer/fused.py`. Read next: `layers.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .. import backends
from ..tensor import Tensor


class Module:
    """Something with parameters. Subclasses assign attributes in `__init__` and compute in `__call__`.

    An attribute is a parameter, another module, or a list, tuple or dictionary of them; anything else is no business
    of this class.

    Attributes:
        masters: where parameters are copies, rounded for computing, what they are copies of: raw arrays, by name.
    """

    masters: Mapping[str, Any] = {}

    def parameters(self) -> dict[str, Tensor]:
        """Every parameter under its name, in the order of assignment; one that is used in two places comes once."""
        found: dict[int, tuple[str, Tensor]] = {}
        for name, parameter in _named(self, ""):
            found.setdefault(id(parameter), (name, parameter))
        return dict(found.values())

    def values(self) -> dict[str, Any]:
        """What every parameter holds, a raw array, under its name; unrounded where there are masters."""
        return {name: self.masters.get(name, parameter.array) for name, parameter in self.parameters().items()}

    def assign(self, arrays: Mapping[str, Any]) -> None:
        """Copy values into the parameters, in place, and into the masters where there are some.

        Args:
            arrays: one for each parameter, by name, on the host or on the model's backend.

        Raises:
            ValueError: a name is missing or unknown, or a shape differs; nothing has been copied then.
        """
        parameters = self.parameters()
        if missing := parameters.keys() - arrays.keys():
            raise ValueError(f"there is no array for {', '.join(sorted(missing))}")
        if unknown := arrays.keys() - parameters.keys():
            raise ValueError(f"the model has no parameter {', '.join(sorted(unknown))}")
        for name, parameter in parameters.items():
            if tuple(arrays[name].shape) != parameter.shape:
                raise ValueError(f"{name} has shape {parameter.shape}, and the array {tuple(arrays[name].shape)}")
        for name, parameter in parameters.items():
            value = parameter.backend.from_host(arrays[name])
            for target in (parameter.array, self.masters.get(name)):
                if target is not None:
                    target[...] = parameter.backend.astype(value, target.dtype)

    def __repr__(self) -> str:
        lines = [f"{name}: {tuple(p.shape)}" for name, p in self.parameters().items()]
        return "\n".join([f"{type(self).__name__}(", *(f"  {line}" for line in lines), ")"])


def _named(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor) and value.requires_grad:
        yield name, value
    elif isinstance(value, Module):
        for attribute, inner in vars(value).items():
            yield from _named(inner, f"{name}.{attribute}" if name else attribute)
    elif isinstance(value, list | tuple | dict):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _named(inner, f"{name}.{key}")


class Initializer:
    """Makes parameters: on one backend, in one dtype, from one random stream.

    Args:
        backend: the name of it.
        dtype: "float32" or "float64".
        seed: the same seed gives the same parameters, on every backend; None gives zeros, to be assigned to.
    """

    def __init__(self, backend: str = "numpy", dtype: str = "float32", seed: int | None = 0) -> None:
        self.backend = backends.get(backend)
        self.dtype = getattr(self.backend, dtype)
        self._random = None if seed is None else self.backend.generator(seed, 0)

    def normal(self, *shape: int, std: float) -> Tensor:
        """Normal numbers with mean 0."""
        if self._random is None:
            return self.constant(*shape, value=0.0)
        return Tensor(self._random.normal(shape, self.dtype) * std, requires_grad=True)

    def weight(self, inputs: int, outputs: int, *, std: float) -> Tensor:
        """Normal numbers for a linear map, `inputs outputs`. What belongs to one output lies together in memory:
        generating text multiplies it by a row at a time, which is then one dot product after the other.
        """
        columns = self.backend.empty((outputs, inputs), dtype=self.dtype)
        columns[...] = self.normal(inputs, outputs, std=std).array.T
        return Tensor(columns.T, requires_grad=True)

    def constant(self, *shape: int, value: float) -> Tensor:
        """One value everywhere."""
        return Tensor(self.backend.full(shape, value, dtype=self.dtype), requires_grad=True)
