"""One gradient case for every primitive, composed function and kernel; the tests walk these tables.

A case draws shapes and a seed and returns a function of Tensors with the float64 arrays to check it at. Anything
that is not differentiated (indices, masks) is closed over. The tests fail when an operation has no case here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tinyformer import Tensor, backward, functional, fused, ops

SIZES = st.integers(1, 5)


@dataclasses.dataclass
class Draw:
    """Random arrays of one backend, from a seed that hypothesis chose."""

    xp: Any
    data: Any

    def __post_init__(self):
        self.random = np.random.default_rng(self.data.draw(st.integers(0, 2**32 - 1), label="seed"))

    def sizes(self, count: int) -> tuple[int, ...]:
        return tuple(self.data.draw(SIZES, label="size") for _ in range(count))

    def pick(self, *values: Any) -> Any:
        return self.data.draw(st.sampled_from(values), label="setting")

    def normal(self, *shape: int) -> Any:
        return self.xp.from_host(self.random.standard_normal(shape))

    def positive(self, *shape: int) -> Any:
        return self.xp.from_host(self.random.uniform(0.5, 3.0, shape))

    def apart(self, *shape: int) -> Any:
        """Numbers at least 0.1 from each other and from 0, so that no kink lies within a finite difference."""
        count = int(np.prod(shape))
        ranks = self.random.permutation(count) - count // 2
        return self.xp.from_host((ranks * 0.2 + 0.1 + self.random.uniform(-0.04, 0.04, count)).reshape(shape))

    def integers(self, high: int, *shape: int) -> Any:
        return self.xp.from_host(self.random.integers(0, high, shape))

    def truths(self, *shape: int) -> Any:
        return self.xp.from_host(self.random.random(shape) < 0.7)

    def broadcasting(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Two shapes that broadcast against each other."""
        full = self.sizes(self.data.draw(st.integers(0, 3), label="axes"))
        pair = []
        for _ in range(2):
            kept = full[self.data.draw(st.integers(0, len(full)), label="leading axes left out") :]
            pair.append(tuple(1 if self.data.draw(st.booleans(), label="length 1") else n for n in kept))
        return pair[0], pair[1]


Case = Callable[[Draw], tuple[Any, ...]]


def _binary(operation: Callable, make: str = "normal") -> Case:
    def case(draw: Draw):
        first, second = draw.broadcasting()
        values = getattr(draw, make)
        return operation, values(*first), values(*second)

    return case


def _unary(operation: Callable, make: str = "normal") -> Case:
    return lambda draw: (operation, getattr(draw, make)(*draw.sizes(draw.pick(0, 1, 2, 3))))


def _maximum(draw: Draw):
    values = draw.apart(2, *draw.sizes(2))
    return ops.maximum, values[0, ...], values[1, ...]


def _where(draw: Draw):
    first, second = draw.broadcasting()
    condition = draw.truths(*np.broadcast_shapes(first, second))
    return lambda a, b: ops.where(condition, a, b), draw.normal(*first), draw.normal(*second)


def _reduction(operation: Callable, make: str) -> Case:
    def case(draw: Draw):
        axis = draw.pick(None, 0, -1, (0, 2), (-1, 1))
        keepdims = draw.pick(True, False)
        return lambda x: operation(x, axis=axis, keepdims=keepdims), getattr(draw, make)(*draw.sizes(3))

    return case


def _reshape(draw: Draw):
    a, b, c = draw.sizes(3)
    shape = draw.pick((a * b * c,), (c, b, a), (b, -1), (1, a * b, c))
    return lambda x: ops.reshape(x, shape=shape), draw.normal(a, b, c)


def _permute(draw: Draw):
    axes = draw.pick((0, 1, 2), (2, 0, 1), (1, 2, 0), (0, -1, 1))
    return lambda x: ops.permute_dims(x, axes=axes), draw.normal(*draw.sizes(3))


def _broadcast_to(draw: Draw):
    full = draw.sizes(3)
    shape = tuple(n if draw.pick(True, False) else 1 for n in full)[draw.pick(0, 1) :]
    return lambda x: ops.broadcast_to(x, shape=full), draw.normal(*shape)


def _concat(draw: Draw):
    a, b, c, d = draw.sizes(4)
    axis = draw.pick(1, -1)
    return lambda x, y, z: ops.concat(x, y, z, axis=axis), draw.normal(a, b), draw.normal(a, c), draw.normal(a, d)


def _getitem(draw: Draw):
    a, b, c = (n + 1 for n in draw.sizes(3))
    key = draw.pick(0, -1, slice(1, None), (slice(None), 1), (..., slice(None, None, 2)), (0, slice(0, 1), -1))
    return lambda x: x[key], draw.normal(a, b, c)


def _take(draw: Draw):
    rows, width, n, m = draw.sizes(4)
    indices = draw.integers(rows, *draw.pick((n,), (n, m), ()))
    return lambda x: ops.take(x, indices), draw.normal(rows, width)


def _take_along_axis(draw: Draw):
    n, m, size = draw.sizes(3)
    indices = draw.integers(size, n, m, 1)
    return lambda x: ops.take_along_axis(x, indices), draw.normal(n, m, size)


def _matmul(draw: Draw):
    b, n, k, m = draw.sizes(4)
    shapes = draw.pick(
        ((n, k), (k, m)), ((b, n, k), (k, m)), ((n, k), (b, k, m)), ((b, 1, n, k), (m, k, n)), ((k,), (k,))
    )
    if draw.pick(True, False):
        shapes = draw.pick((shapes[0], (k,)), ((k,), (b, k, m)), shapes)
    return ops.matmul, draw.normal(*shapes[0]), draw.normal(*shapes[1])


def _astype(draw: Draw):
    return lambda x: ops.astype(x, dtype=draw.xp.float64), draw.normal(*draw.sizes(2))


def _power(draw: Draw):
    exponent = draw.pick(-1, 0, 0.5, 2, 3)
    return lambda x: x**exponent, draw.positive(*draw.sizes(2))


def _scale(draw: Draw):
    factor = draw.pick(-2, 0.3, 0)
    return lambda x: x * factor, draw.normal(*draw.sizes(2))


PRIMITIVES: dict[str, Case] = {
    "absolute": _unary(ops.absolute, "apart"),
    "add": _binary(ops.add),
    "astype": _astype,
    "broadcast_to": _broadcast_to,
    "concat": _concat,
    "cos": _unary(ops.cos),
    "divide": _binary(ops.divide, "positive"),
    "erf": _unary(ops.erf),
    "exp": _unary(ops.exp),
    "getitem": _getitem,
    "log": _unary(ops.log, "positive"),
    "matmul": _matmul,
    "max": _reduction(ops.max, "apart"),
    "maximum": _maximum,
    "multiply": _binary(ops.multiply),
    "negative": _unary(ops.negative),
    "permute_dims": _permute,
    "power": _power,
    "reshape": _reshape,
    "scale": _scale,
    "sin": _unary(ops.sin),
    "sqrt": _unary(ops.sqrt, "positive"),
    "subtract": _binary(ops.subtract),
    "sum": _reduction(ops.sum, "normal"),
    "take": _take,
    "take_along_axis": _take_along_axis,
    "tanh": _unary(ops.tanh),
    "where": _where,
}


# Composed functions. Each case is built for any implementation of the function, so that the fused kernel and the
# reference are put to the same question.


def _softmax(draw: Draw, function: Callable):
    n, m = draw.sizes(2)
    mask = draw.pick(None, draw.truths(n, m), draw.truths(m), draw.truths(n, 1))  # the last hides whole lines
    return lambda x: function(x, mask), draw.normal(n, m)


def _attention(draw: Draw, function: Callable):
    b, h, t, c = draw.sizes(4)
    t = draw.pick(t, t, 65, 130)  # beyond one block of queries
    s = t + draw.pick(0, 0, 3)
    settings = {"causal": draw.pick(True, False), "scale": draw.pick(None, 1.0)}
    hiding = draw.pick(None, (b, 1, 1, s), (b, 1, t, s), (1, 1, t, s), (b, h, t, s), (s,))
    adding = draw.pick(None, (1, h, t, s), (b, h, t, s), (1, 1, 1, s), (t, 1))
    mask = None if hiding is None else draw.truths(*hiding)  # some queries see nothing
    bias = [] if adding is None else [draw.normal(*adding)]
    keep = draw.pick(None, draw.truths(b, h, t, s))
    rows, heads = draw.pick((b, h), (b, h), (1, h), (b, 1))  # of keys and values, which others may share
    arrays = [draw.normal(b, t, h, c), draw.normal(rows, s, heads, c), draw.normal(rows, s, heads, c)]
    arrays = [draw.xp.permute_dims(x, (0, 2, 1, 3)) for x in arrays]  # views, as the layers pass them

    def attend(q, k, v, bias=None):
        return function(q, k, v, mask, bias, keep, dropout_rate=0.3, **settings)

    return attend, *arrays, *bias


def _cross_entropy(draw: Draw, function: Callable):
    n, m, v = draw.sizes(3)
    targets = draw.integers(v, n, m)
    weights = draw.pick(None, draw.positive(n, m))
    settings = {"total": draw.pick(None, 7.0), "smoothing": draw.pick(0.0, 0.1)}
    overwrite = draw.pick(True, False)  # a copy, which scale keeps no hold of

    def loss(x):
        return function(ops.scale(x, factor=1.0) if overwrite else x, targets, weights, overwrite=overwrite, **settings)

    return loss, draw.normal(n, m, v)


def _rotary(draw: Draw, function: Callable):
    b, h, t, pairs = draw.sizes(4)
    angles = draw.normal(t, pairs), draw.normal(t, pairs)

    def turn(x):
        like_x = draw.xp.name == "cupy"  # NumPy's kernel takes either precision
        return function(x, *(draw.xp.astype(a, x.dtype) if like_x else a for a in angles))

    return turn, draw.normal(b, h, t, 2 * pairs)


def _dropout(draw: Draw, function: Callable):
    shape = draw.sizes(2)
    keep = draw.pick(None, draw.truths(*shape))
    return lambda x: function(x, keep, rate=0.3), draw.normal(*shape)


def _norm(epsilon: float, *, biased: bool) -> Callable[[Draw, Callable], tuple]:
    def case(draw: Draw, function: Callable):
        *axes, d = draw.sizes(draw.pick(1, 2, 3))
        d += 2  # a norm of one or two channels is nearly a step function
        settings, optional = {"epsilon": draw.pick(epsilon, 0.1)}, {}
        if biased and draw.pick(True, False):
            optional["bias"] = draw.positive(d)
        if draw.pick(True, False):
            optional["residual"] = draw.normal(*axes, d + 2)[..., 2:]

        def norm(x, weight, *others):
            return function(x, weight, **dict(zip(optional, others, strict=True)), **settings)

        return norm, draw.normal(*axes, d + 1)[..., :d], draw.positive(d), *optional.values()

    return case


def _linear(draw: Draw, function: Callable):
    *axes, d, f = draw.sizes(draw.pick(2, 3, 4))
    bias = [draw.normal(f)] if draw.pick(True, False) else []
    return function, draw.normal(*axes, d), draw.normal(d, f), *bias


def _feed_forward(draw: Draw, function: Callable):
    *axes, d, f = draw.sizes(draw.pick(2, 3, 4))
    biases = [draw.normal(f), draw.normal(d)] if draw.pick(True, False) else []
    activation = draw.pick("gelu", "gelu-exact", "silu")
    arrays = draw.normal(*axes, d), draw.normal(d, f), draw.normal(f, d), *biases
    return lambda *inputs: function(*inputs, activation=activation), *arrays


def _gated(draw: Draw, function: Callable):
    shape = draw.sizes(2)
    activation = draw.pick(*functional.ACTIVATIONS)
    return lambda gate, up: function(gate, up, activation=activation), draw.apart(*shape), draw.normal(*shape)


def _embedding(draw: Draw, function: Callable):
    rows, width, n = draw.sizes(3)
    ids = draw.integers(rows, n, 2)
    return lambda weight: function(weight, ids), draw.normal(rows, width)


def _of_one(make: str = "normal", **choices: tuple) -> Callable[[Draw, Callable], tuple]:
    def case(draw: Draw, function: Callable):
        shape = draw.sizes(2)
        settings = {name: draw.pick(*values) for name, values in choices.items()}
        return lambda x: function(x, **settings), getattr(draw, make)(*shape)

    return case


COMPOSED: dict[str, Callable[[Draw, Callable], tuple]] = {
    "attention": _attention,
    "cross_entropy": _cross_entropy,
    "dropout": _dropout,
    "embedding": _embedding,
    "feed_forward": _feed_forward,
    "gated": _gated,
    "gelu": _of_one(approximate=(True, False)),
    "layer_norm": _norm(1e-5, biased=True),
    "linear": _linear,
    "log_softmax": _of_one(),
    "mean": _of_one(),
    "relu": _of_one("apart"),
    "rms_norm": _norm(1e-6, biased=False),
    "rotary": _rotary,
    "sigmoid": _of_one(),
    "silu": _of_one(),
    "softmax": _softmax,
}

NOT_DIFFERENTIABLE = {functional.causal_mask}


def compare_with_reference(name: str, dtype: str, draw: Draw) -> None:
    """Values and every gradient; the reference runs in float64, the kernel in either precision."""
    dispatch, xp = fused.registry[name], draw.xp
    use = {"function": dispatch}
    function, *arrays = COMPOSED[name](draw, lambda *args, **settings: use["function"](*args, **settings))
    cotangent, results = None, []
    for chosen, precision in ((dispatch.__wrapped__, "float64"), (dispatch, dtype)):
        use["function"] = chosen
        leaves = [Tensor(xp.astype(x, getattr(xp, precision)), requires_grad=True) for x in arrays]
        out = function(*leaves)
        cotangent = draw.normal(*out.shape) if cotangent is None else cotangent
        gradients = backward(ops.sum(out * Tensor(xp.astype(cotangent, out.dtype))))
        results.append([xp.to_host(x) for x in (out.array, *(gradients[leaf] for leaf in leaves))])
    tolerance = 1e-12 if dtype == "float64" else 2e-5
    for expected, found in zip(*results, strict=True):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * max(1.0, np.abs(expected).max()))
