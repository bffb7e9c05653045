"""The autograd engine: arrays that remember how they were made, and the walk back from a loss to its gradients.

A *primitive* is a plain function on raw arrays that returns its output together with a closure, the vector-Jacobian
product, that turns the gradient of the output into the gradients of the inputs. Calling it on Tensors records one
`Node`. `backward` visits the nodes from the newest to the oldest and lets each closure pull the gradient one step
back: reverse-mode differentiation. Only first derivatives: what the closures do on raw arrays is not recorded.

Read next: `ops.py`, the mathematics of each step.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import heapq
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from . import backends

Array = Any  # a raw array of any backend

_recording = contextvars.ContextVar("recording", default=True)
_serials = itertools.count()  # next() on it is atomic, so workers may record at once


class Node:
    """How a tensor was made: which primitive, from which inputs, and the way back."""

    __slots__ = ("inputs", "name", "serial", "vjp")

    def __init__(self, name: str, inputs: tuple[Any, ...], vjp: Callable[[Array], tuple[Array | None, ...]]) -> None:
        self.name, self.inputs, self.vjp = name, inputs, vjp
        self.serial = next(_serials)


class Tensor:
    """An array that gradients can be taken with respect to.

    Args:
        data: an array of any backend, kept as it is; or a number or nested list, which becomes a NumPy array (real
            numbers in float32).
        requires_grad: whether `backward` should reach it; a TypeError for integers, which have no gradients.

    Attributes:
        array: the raw array.
        grad: after `loss.backward()`, the gradient of the loss, a raw array; None before.
        node: how it was made; None for a leaf, which was given.
    """

    __slots__ = ("__weakref__", "array", "grad", "node", "requires_grad")
    __array_ufunc__ = None  # lets `ndarray * tensor` reach Tensor.__rmul__

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        if not hasattr(data, "dtype"):
            numpy = backends.get("numpy")
            data = numpy.from_host(data)
            data = data.astype(numpy.float32) if numpy.is_floating(data) else data
        if requires_grad and not backends.of(data).is_floating(data):
            raise TypeError(f"only real numbers have gradients, and this tensor holds {data.dtype}; cast it first")
        self.array, self.requires_grad = data, requires_grad
        self.grad: Array | None = None
        self.node: Node | None = None

    shape = property(lambda self: tuple(self.array.shape))
    ndim = property(lambda self: self.array.ndim)
    dtype = property(lambda self: self.array.dtype)
    backend = property(lambda self: backends.of(self.array), doc="The array namespace that the tensor lives in.")

    def numpy(self) -> Any:
        """The values as a NumPy array on the host; without a copy where they are one already."""
        return self.backend.to_host(self.array)

    def item(self) -> float | int:
        """The only element, as a Python number."""
        return self.numpy().item()

    def detach(self) -> Tensor:
        """The same values as a constant: gradients stop here."""
        return Tensor(self.array)

    def backward(self) -> None:
        """Set `.grad` of every leaf that this scalar depends on, adding to what is there."""
        for leaf, gradient in backward(self).items():
            leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient

    def __len__(self) -> int:
        return len(self.array)

    def __repr__(self) -> str:
        made = f", made by {self.node.name}" if self.node else ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({self.array!r}{made})"


@contextlib.contextmanager
def no_grad() -> Iterator[None]:
    """Inside, nothing is recorded: operations only compute, and keep no input alive."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


def primitive(function: Callable[..., tuple[Array, Callable]]) -> Callable[..., Tensor]:
    """Make a differentiable operation out of a function on raw arrays.

    Args:
        function: `function(xp, *arrays, **metadata) -> (out, vjp)`. `xp` is the array namespace (see
            `backends/contract.py`). `vjp(gradient)` returns one gradient for each array, or None where there is
            none; gradients of broadcast inputs may have the shape of the output, the engine sums them.

    Returns:
        An operation on Tensors with the same name and docstring. Inputs that are no Tensors are constants.
    """
    name = function.__name__

    @functools.wraps(function)
    def operation(*inputs: Any, **metadata: Any) -> Tensor:
        arrays = [x.array if isinstance(x, Tensor) else x for x in inputs]
        try:
            xp = _common_backend(inputs)
            out, vjp = function(xp, *arrays, **metadata)
        except (IndexError, TypeError, ValueError) as error:
            kind = next(k for k in (IndexError, TypeError, ValueError) if isinstance(error, k))
            shapes = ", ".join(str(tuple(getattr(a, "shape", ()))) for a in arrays)
            raise kind(f"{name} of shapes {shapes}: {error}") from error
        result = Tensor(xp.asarray(out))
        if _recording.get() and any(isinstance(x, Tensor) and x.requires_grad for x in inputs):
            result.requires_grad = True
            result.node = Node(name, inputs, vjp)
        return result

    return operation


def _common_backend(inputs: tuple[Any, ...]) -> backends.Backend:
    found = {x.backend for x in inputs if isinstance(x, Tensor)}
    if len(found) != 1:
        names = " and ".join(sorted(backend.name for backend in found)) or "none"
        raise TypeError(f"the inputs must be tensors of one backend, found {names}")
    return found.pop()


def backward(loss: Tensor, gradient: Array | None = None) -> dict[Tensor, Array]:
    """The gradient of a loss with respect to every leaf that it depends on.

    A pure function but for freeing the graph: nothing is stored in tensors, so threads may run it over shared leaves.

    Args:
        loss: a scalar, unless `gradient` is given.
        gradient: to start from, of the shape of `loss`; default 1. (The vector in "vector-Jacobian product".)

    Returns:
        For each leaf with `requires_grad`, its gradient as a raw array of the leaf's shape and dtype.

    Raises:
        RuntimeError: nothing was recorded, or the graph was freed by an earlier call.
        ValueError: the loss is not a scalar, or a closure returned a gradient of the wrong shape or dtype.
    """
    if not loss.requires_grad:
        raise RuntimeError("no gradient exists: the loss depends on no tensor with requires_grad, or is under no_grad")
    if gradient is None:
        if loss.shape != ():
            raise ValueError(f"backward starts from a scalar, and this tensor has shape {loss.shape}; sum it first")
        gradient = loss.backend.ones_like(loss.array)
    gradients = {loss: gradient}
    # A tensor is made after its inputs, so going from the newest serial to the oldest meets each tensor only after
    # everything that was computed from it: no recursion, and no separate topological sort.
    waiting = [(-loss.node.serial, loss)] if loss.node else []
    while waiting:
        _, tensor = heapq.heappop(waiting)
        node, inputs, vjp = tensor.node, tensor.node.inputs, tensor.node.vjp
        if vjp is None:
            raise RuntimeError(f"the graph behind this {node.name} was freed by an earlier backward; compute it again")
        pulled = vjp(gradients.pop(tensor))
        node.inputs, node.vjp = (), None
        for x, gradient in zip(inputs, pulled):
            if isinstance(x, Tensor) and x.requires_grad:
                gradient = _fit(gradient, x, node.name)
                if x.node and x not in gradients:
                    heapq.heappush(waiting, (-x.node.serial, x))
                gradients[x] = gradients[x] + gradient if x in gradients else gradient
    return gradients


def _fit(gradient: Array | None, x: Tensor, name: str) -> Array:
    """Undo broadcasting: sum the gradient over the axes along which `x` was repeated."""
    if gradient is None:
        raise ValueError(f"{name} has no gradient for its input of shape {x.shape}; detach() that input")
    if gradient.shape != x.array.shape and gradient.ndim >= x.ndim:
        xp = backends.of(gradient)
        gradient = xp.sum(gradient, axis=tuple(range(gradient.ndim - x.ndim)))
        gradient = xp.sum(gradient, axis=tuple(i for i, n in enumerate(x.shape) if n == 1), keepdims=True)
    if gradient.shape != x.array.shape or gradient.dtype != x.dtype:
        made = f"a gradient of shape {tuple(gradient.shape)} and {gradient.dtype}"
        raise ValueError(f"{name} returned {made} for an input of shape {x.shape} and {x.dtype}")
    return gradient
