"""Every composed function and its fused kernel against torch: values, and gradients for a random cotangent."""

import inspect
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import NOT_DIFFERENTIABLE, Draw
from tinyformer import Tensor, backends, backward, functional, fused

pytestmark = pytest.mark.oracle


def assert_same(ours, theirs, arrays, random):
    """Compare two functions of float64 arrays, one of Tensors and one of torch's, to 1e-10 of the largest element."""
    leaves = [Tensor(x, requires_grad=True) for x in arrays]
    torch_leaves = [torch.tensor(x, requires_grad=True) for x in arrays]
    out, expected = ours(*leaves), theirs(*torch_leaves)
    assert out.shape == tuple(expected.shape)
    cotangent = random.standard_normal(out.shape)
    gradients = backward(out, cotangent)
    expected.backward(torch.tensor(cotangent))
    pairs = [(out.array, expected.detach()), *((gradients[x], y.grad) for x, y in zip(leaves, torch_leaves))]
    for found, wanted in pairs:
        wanted = wanted.numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12 * max(1.0, np.abs(wanted).max(initial=0.0)))


# Each case returns our call of a given implementation, torch's, and the arrays.


def softmax(draw):
    shape, axis = draw.sizes(3), draw.pick(-1, 0, 1)
    mask = draw.pick(None, draw.truths(*shape), draw.truths(shape[-1]))

    def theirs(x):
        if mask is None:
            return torch.softmax(x, axis)
        shown = torch.tensor(mask).expand(x.shape)
        some = shown.any(axis, keepdim=True)  # a line that is hidden altogether is 0 here, and NaN in torch
        scores = torch.where(shown, x, -torch.inf).masked_fill(~some, 0.0)
        return torch.softmax(scores, axis).masked_fill(~some, 0.0)

    return lambda f: lambda x: f(x, mask, axis=axis), theirs, [draw.normal(*shape)]


def log_softmax(draw):
    axis = draw.pick(-1, 0)
    return lambda f: lambda x: f(x, axis=axis), lambda x: torch.log_softmax(x, axis), [draw.normal(*draw.sizes(2)) * 9]


def layer_norm(draw):
    *axes, d = draw.sizes(draw.pick(1, 2, 3))
    biased, epsilon = draw.pick(True, False), draw.pick(1e-5, 0.1)
    arrays = [*draw.normal(2, *axes, d + 1), *(draw.normal(d + 1) for _ in range(1 + biased))]
    return (
        lambda f: lambda x, more, *parameters: f(x, *parameters, residual=more, epsilon=epsilon),
        lambda x, more, *parameters: F.layer_norm(x + more, (d + 1,), *parameters, eps=epsilon),
        arrays,
    )


def rms_norm(draw):
    *axes, d = draw.sizes(draw.pick(1, 2, 3))
    epsilon = draw.pick(1e-6, 0.1)
    return (
        lambda f: lambda x, more, weight: f(x, weight, residual=more, epsilon=epsilon),
        lambda x, more, weight: F.rms_norm(x + more, (d,), weight, eps=epsilon),
        [*draw.normal(2, *axes, d), draw.normal(d)],
    )


ACTIVATIONS = {
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "gelu-exact": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
}


def gated(draw):
    shape = draw.sizes(2)
    name = draw.pick(*ACTIVATIONS)
    return (
        lambda function: lambda gate, up: function(gate, up, activation=name),
        lambda gate, up: ACTIVATIONS[name](gate) * up,
        [draw.apart(*shape), draw.normal(*shape)],
    )


def gelu(draw):
    approximate = draw.pick(True, False)
    return (
        lambda f: lambda x: f(x, approximate=approximate),
        lambda x: F.gelu(x, approximate="tanh" if approximate else "none"),
        [draw.normal(*draw.sizes(2)) * 3],
    )


def linear(draw):
    *axes, d, f = draw.sizes(draw.pick(2, 3, 4))
    bias = [draw.normal(f)] if draw.pick(True, False) else []
    return (
        lambda f: f,
        lambda x, weight, *bias: F.linear(x, weight.T, *bias),
        [draw.normal(*axes, d), draw.normal(d, f), *bias],
    )


def feed_forward(draw):
    *axes, d, f = draw.sizes(draw.pick(2, 3))
    biases = [draw.normal(f), draw.normal(d)] if draw.pick(True, False) else []
    name = draw.pick(*ACTIVATIONS)

    def theirs(x, up, down, *biases):
        up_bias, down_bias = biases or (None, None)
        return F.linear(ACTIVATIONS[name](F.linear(x, up.T, up_bias)), down.T, down_bias)

    return (
        lambda function: lambda *inputs: function(*inputs, activation=name),
        theirs,
        [draw.normal(*axes, d), draw.normal(d, f), draw.normal(f, d), *biases],
    )


def embedding(draw):
    rows, width, n, m = draw.sizes(4)
    ids = draw.integers(rows, n, m)
    return (
        lambda f: lambda weight: f(weight, ids),
        lambda weight: F.embedding(torch.tensor(ids), weight),
        [draw.normal(rows, width)],
    )


def dropout(draw):
    shape, rate = draw.sizes(2), draw.pick(0.0, 0.3)
    keep = draw.truths(*shape)
    return (
        lambda f: lambda x: f(x, keep, rate=rate),
        lambda x: x * torch.tensor(keep) / (1 - rate),
        [draw.normal(*shape)],
    )


def rotary(draw):
    b, h, t, pairs = draw.sizes(4)
    angles = draw.normal(t, pairs)

    def theirs(x):
        turned = torch.complex(*x.chunk(2, dim=-1)) * torch.exp(1j * torch.tensor(angles))
        return torch.cat([turned.real, turned.imag], dim=-1)

    return lambda f: lambda x: f(x, np.cos(angles), np.sin(angles)), theirs, [draw.normal(b, h, t, 2 * pairs)]


def cross_entropy(draw):
    n, m, v = draw.sizes(3)
    targets, smoothing = draw.integers(v, n, m), draw.pick(0.0, 0.1)
    weights, total = draw.pick(None, draw.positive(n, m)), draw.pick(None, 7.0)

    def theirs(logits):
        each = F.cross_entropy(
            logits.reshape(-1, v), torch.tensor(targets).reshape(-1), reduction="none", label_smoothing=smoothing
        )
        shares = torch.ones_like(each) if weights is None else torch.tensor(weights).reshape(-1)
        return (each * shares).sum() / (shares.sum() if total is None else total)

    return (
        lambda f: lambda logits: f(logits, targets, weights, total=total, smoothing=smoothing),
        theirs,
        [draw.normal(n, m, v) * 3],
    )


def mean(draw):
    axis, keepdims = draw.pick(None, 0, -1, (0, 2)), draw.pick(True, False)
    return (
        lambda f: lambda x: f(x, axis=axis, keepdims=keepdims),
        lambda x: x.mean(axis, keepdim=keepdims) if axis is not None or keepdims else x.mean(),
        [draw.normal(*draw.sizes(3))],
    )


def of_one(theirs):
    """The cases of a function of one array and nothing else."""
    return lambda draw: (lambda f: f, theirs, [draw.normal(*draw.sizes(draw.pick(0, 1, 2, 3))) * 3])


def relu(draw):
    return lambda f: f, torch.relu, [np.round(draw.normal(*draw.sizes(2)))]  # whole numbers, so that 0 occurs


def attention(draw, masked=None, biased=None, dropped=None, causal=None):
    b, h, t, c = draw.sizes(4)
    t = draw.pick(t, t, 65, 130)  # beyond one block of the kernel's queries
    s = max(1, t + draw.pick(0, 0, 3, -2))  # where queries outnumber keys, a causal one may have nothing to look at
    masked, biased, dropped, causal = (
        draw.pick(True, False) if choice is None else choice for choice in (masked, biased, dropped, causal)
    )
    mask = draw.pick(draw.truths(b, 1, 1, s), draw.truths(t, s), draw.truths(b, h, t, s)) if masked else None
    keep = draw.truths(b, h, t, s) if dropped else None
    bias = [draw.normal(*draw.pick((1, h, t, s), (b, 1, t, s)))] if biased else []
    scale, rate = draw.pick(None, 1.0), 0.3

    def ours(function):
        def attend(q, k, v, bias=None):
            return function(q, k, v, mask, bias, keep, causal=causal, scale=scale, dropout_rate=rate)

        return attend

    def theirs(q, k, v, bias=None):
        seen = torch.ones(b, h, t, s, dtype=torch.bool)
        if causal:
            seen = seen.tril(s - t)
        if masked:
            seen = seen & torch.tensor(mask)
        added = torch.where(seen, torch.zeros((), dtype=q.dtype) if bias is None else bias, -torch.inf)
        if not dropped:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=added, scale=scale)
        # Torch draws its dropout's mask itself; averaging the rows of the identity gives the weights to put ours on.
        identity = torch.eye(s, dtype=q.dtype).expand(b, h, s, s)
        weights = F.scaled_dot_product_attention(q, k, identity, attn_mask=added, scale=scale)
        return weights * torch.tensor(keep) / (1 - rate) @ v

    return ours, theirs, [draw.normal(b, h, t, c), draw.normal(b, h, s, c), draw.normal(b, h, s, c), *bias]


CASES = {
    "attention": attention,
    "cross_entropy": cross_entropy,
    "dropout": dropout,
    "embedding": embedding,
    "feed_forward": feed_forward,
    "gated": gated,
    "gelu": gelu,
    "layer_norm": layer_norm,
    "linear": linear,
    "log_softmax": log_softmax,
    "mean": mean,
    "relu": relu,
    "rms_norm": rms_norm,
    "rotary": rotary,
    "sigmoid": of_one(torch.sigmoid),
    "silu": of_one(F.silu),
    "softmax": softmax,
}
COMPOSED = {name: f for name, f in vars(functional).items() if inspect.isfunction(f) and not name.startswith("_")}
IMPLEMENTATIONS = [(name, "composed") for name in CASES] + [(name, "fused") for name in fused.registry]


def check(case, name, path, data, **choices):
    draw = Draw(backends.get("numpy"), data)
    ours, theirs, arrays = case(draw, **choices)
    implementation = COMPOSED[name] if path == "composed" else fused.registry[name]
    assert_same(ours(implementation), theirs, arrays, draw.random)


def test_every_composed_function_has_a_case():
    assert {name for name, f in COMPOSED.items() if f not in NOT_DIFFERENTIABLE} == set(CASES)
    assert set(fused.registry) <= set(CASES)


@pytest.mark.parametrize(("name", "path"), IMPLEMENTATIONS)
@given(data=st.data())
def test_function_equals_torch(name, path, data):
    check(CASES[name], name, path, data)


@pytest.mark.parametrize("path", ["composed", "fused"])
@pytest.mark.parametrize("chosen", list(itertools.product([False, True], repeat=4)), ids=str)
@given(data=st.data())
def test_attention_in_every_combination_equals_torch(chosen, path, data):
    check(attention, "attention", path, data, **dict(zip(("masked", "biased", "dropped", "causal"), chosen)))


@given(st.integers(1, 9), st.integers(1, 9))
def test_causal_mask_equals_torch(queries, keys):
    found = functional.causal_mask(backends.get("numpy"), queries, keys)
    np.testing.assert_array_equal(found, torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries).numpy())
