"""The autograd engine: arrays that remember how they were made, and the walk back from a loss to its gradients.

A *primitive* is a plain function on raw arrays that returns its output and a closure, the vector-Jacobian product,
that turns the gradient of the output into those of the inputs. Calling it on Tensors records one `Node`. `backward`
visits the nodes from the newest to the oldest, and each closure pulls the gradient one step back: reverse-mode
differentiation. Only first derivatives: what the closures do on raw arrays is not recorded.

Read next: `ops.py`, the mathematics of each step.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from . import backends

Array = Any  # a raw array of any backend

_recording = contextvars.ContextVar("recording", default=True)
_NAMED = (ArithmeticError, IndexError, TypeError, ValueError)
_serials = itertools.count()  # next() on it is atomic, so workers may record at once


class Node:
    """How a tensor of this shape and dtype was made. Only its closure, `vjp`, keeps arrays alive.

    `sources` has, for each input, the node that made it, the tensor if it is a leaf, or None where no gradient goes.
    """

    __slots__ = ("dtype", "name", "serial", "shape", "sources", "vjp")

    def __init__(self, name: str, sources: Sequence[Node | Tensor | None], vjp: Callable, out: Array) -> None:
        self.name, self.sources, self.vjp = name, sources, vjp
        self.shape, self.dtype, self.serial = tuple(out.shape), out.dtype, next(_serials)


class Tensor:
    """An array that gradients can be taken with respect to.

    Args:
        data: an array of any backend, kept as it is; or a number or nested list (real numbers become float32).
        requires_grad: whether `backward` should reach it; a TypeError for integers, which have no gradients.

    Attributes:
        array: the raw array.
        grad: after `loss.backward()`, the gradient of the loss, a raw array; None before.
        node: how it was made; None for a leaf, which was given.
    """

    __slots__ = ("__weakref__", "array", "grad", "node", "requires_grad")
    __array_ufunc__ = None  # lets `ndarray * tensor` reach Tensor.__rmul__

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        self.array, self.requires_grad = backends.as_array(data), requires_grad
        if requires_grad and not self.backend.is_floating(self.array):
            raise TypeError(f"only real numbers have gradients, and this tensor holds {self.dtype}; cast it first")
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
            leaf.grad = leaf.backend.asarray(gradient, copy=True) if leaf.grad is None else leaf.grad + gradient

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
            `backends/contract.py`). `vjp(gradient)` returns a tuple with a gradient for each array, or None where
            there is none, and never writes into the gradient that it is given. Gradients of broadcast inputs may
            have the shape of the output: the engine sums them.

    Returns:
        An operation on Tensors with the same name and docstring. Inputs that are no Tensors are constants.
    """

    @functools.wraps(function)
    def operation(*inputs: Any, **metadata: Any) -> Tensor:
        arrays = [x.array if isinstance(x, Tensor) else x for x in inputs]
        try:
            xp = backends.common([x.array for x in inputs if isinstance(x, Tensor)])
            out, vjp = function(xp, *arrays, **metadata)
        except _NAMED as error:
            raise _named(error, function.__name__, arrays) from error
        result = Tensor(xp.asarray(out))
        if _recording.get():
            sources = [(x.node or x) if isinstance(x, Tensor) and x.requires_grad else None for x in inputs]
            if sources.count(None) < len(sources):
                result.requires_grad, result.node = True, Node(function.__name__, sources, vjp, out)
        return result

    return operation


def _named(error: Exception, name: str, arrays: Iterable[Any]) -> Exception:
    """An error of the same kind whose message says in which operation it arose, and the shapes there."""
    kind = next(kind for kind in _NAMED if isinstance(error, kind))
    shapes = ", ".join(str(tuple(getattr(a, "shape", ()))) for a in arrays)
    return kind(f"{name} of shapes {shapes}: {error}")


def backward(loss: Tensor, gradient: Array | None = None) -> dict[Tensor, Array]:
    """The gradient of a loss with respect to every leaf that it depends on; to be read only, as leaves may share one.

    A pure function but for freeing the graph: nothing is stored in tensors, so threads may run it over shared leaves.

    Args:
        loss: a scalar, unless `gradient` is given.
        gradient: to start from, of the shape of `loss`; default 1. (The vector in "vector-Jacobian product".)

    Raises:
        RuntimeError: nothing was recorded, or the graph was freed by an earlier call.
        ValueError: the loss is not a scalar, or a closure returned gradients of the wrong number, shape or dtype.
    """
    if not loss.requires_grad:
        raise RuntimeError("no gradient exists: the loss depends on no tensor with requires_grad, or is under no_grad")
    if gradient is None:
        if loss.shape != ():
            raise ValueError(f"backward starts from a scalar, and this tensor has shape {loss.shape}; sum it first")
        gradient = loss.backend.ones_like(loss.array)
    gradients = {loss.node or loss: gradient}
    # A tensor is made after its inputs, so going from the newest serial to the oldest meets each node only after
    # everything that was computed from it: no recursion, and no separate topological sort.
    waiting = [(-loss.node.serial, loss.node)] if loss.node else []
    while waiting:
        _, node = heapq.heappop(waiting)
        sources, vjp, gradient = node.sources, node.vjp, gradients.pop(node)
        if vjp is None:
            raise RuntimeError(f"the graph behind this {node.name} was freed by an earlier backward; compute it again")
        try:
            pulled = vjp(gradient)
            if not isinstance(pulled, tuple) or len(pulled) != len(sources):
                raise ValueError(f"the vjp must return a tuple of {len(sources)}, one gradient for each input")
        except _NAMED as error:
            raise _named(error, f"gradient of {node.name}", [gradient]) from error
        node.sources, node.vjp = (), None
        for source, gradient in zip(sources, pulled):
            if source is not None:
                gradient = _fit(gradient, source, node.name)
                if isinstance(source, Node) and source not in gradients:
                    heapq.heappush(waiting, (-source.serial, source))
                gradients[source] = gradients[source] + gradient if source in gradients else gradient
    return gradients


def _fit(gradient: Array | None, source: Node | Tensor, name: str) -> Array:
    """Undo broadcasting: sum the gradient over the axes along which the source was repeated."""
    shape = source.shape
    if gradient is None:
        raise ValueError(f"{name} has no gradient for its input of shape {shape}; detach() that input")
    if gradient.shape != shape and gradient.ndim >= len(shape):
        xp = backends.of(gradient)
        gradient = xp.sum(gradient, axis=tuple(range(gradient.ndim - len(shape))))
        gradient = xp.sum(gradient, axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)
    if gradient.shape != shape or gradient.dtype != source.dtype:
        made = f"a gradient of shape {tuple(gradient.shape)} and {gradient.dtype}"
        raise ValueError(f"{name} returned {made} for an input of shape {shape} and {source.dtype}")
    return gradient
