"""What the layers compute, against the loops of `tests/plain.py`: gradients alone would not see a wrong formula."""

import itertools

import numpy as np
import pytest

from tests import plain
from tinyformer import Tensor, backends, nn

RATE = 0.3


def made(layer, *arguments, seed=0, **settings):
    """A layer, and its parameters, all of them random, as plain arrays."""
    module = layer(*arguments, nn.Initializer("any", "float64"), **settings)
    rng = np.random.default_rng(seed)
    arrays = {name: rng.standard_normal(p.shape) * 0.5 for name, p in module.parameters().items()}
    module.assign(arrays)
    return module, arrays


def draw(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


def drops(stream, rate=RATE):
    """The factors of dropout that a stream gives."""

    def factors(shape):
        kept = stream.keep(shape, 1.0 - rate)
        truths = kept.drawn() if isinstance(kept, backends.Undrawn) else kept
        return backends.of(truths).to_host(truths) / (1.0 - rate)

    return factors


def assert_close(found, expected):
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-12)


ATTENTION = {
    "self": ({}, {}),
    "causal": ({}, {"causal": True}),
    "without bias": ({"bias": False}, {"causal": True}),
    "wide heads": ({"head_width": 6}, {}),
    "cross": ({}, {"memory": draw(2, 7, 8, seed=2)}),
    "causal cross": ({}, {"memory": draw(2, 7, 8, seed=2), "causal": True}),
    "padded": ({}, {"mask": np.array([[True] * 5, [True, False, True, True, False]])}),
    "padded and causal": ({}, {"mask": np.array([[True] * 5, [False, False, True, True, True]]), "causal": True}),
    "padded cross": ({}, {"memory": draw(2, 3, 8, seed=2), "mask": np.array([[True, True, False], [False] * 3])}),
    "rotary": ({}, {"angles": draw(5, 2, seed=3), "causal": True}),
}


@pytest.mark.parametrize("dropped", [False, True], ids=["inference", "dropout"])
@pytest.mark.parametrize("name", ATTENTION)
def test_attention_is_the_paper_s_sum_over_keys(name, dropped, xp):
    sizes, call = ATTENTION[name]
    layer, parameters = made(lambda init: nn.Attention(8, 2, init, dropout=RATE, **sizes))
    x, given = draw(2, 5, 8), {key: value for key, value in call.items() if key == "causal"}
    if "memory" in call:
        given["memory"] = layer.keys_values(Tensor(xp.from_host(call["memory"])))
    if "mask" in call:
        given["mask"] = xp.from_host(call["mask"])[:, None, None, :]
    if "angles" in call:
        given["angles"] = xp.from_host(np.cos(call["angles"])), xp.from_host(np.sin(call["angles"]))
    found = layer(Tensor(xp.from_host(x)), rng=xp.generator(7) if dropped else None, **given)
    drop = drops(xp.generator(7)) if dropped else plain.keep_all
    assert_close(found, plain.attention(parameters, x, heads=2, drop=drop, **call))


BLOCKS = {
    f"{position}-norm, {norm}, {'gated ' * gated}{activation}": {
        "pre_norm": position == "pre",
        "norm": norm,
        "gated": gated,
        "activation": activation,
    }
    for position, norm, (gated, activation) in itertools.product(
        ["pre", "post"], ["layer", "rms"], [(False, "gelu"), (False, "relu"), (True, "silu")]
    )
}


@pytest.mark.parametrize("dropped", [False, True], ids=["inference", "dropout"])
@pytest.mark.parametrize("name", BLOCKS)
def test_block(name, dropped, xp):
    epsilon = 0.05
    layer, parameters = made(lambda init: nn.Block(8, 2, 12, init, dropout=RATE, epsilon=epsilon, **BLOCKS[name]))
    x = draw(2, 5, 8)
    found = layer(Tensor(xp.from_host(x)), causal=True, rng=xp.generator(7) if dropped else None)
    drop = drops(xp.generator(7)) if dropped else plain.keep_all
    settings = {key: value for key, value in BLOCKS[name].items() if key != "gated"}
    expected = plain.block(parameters, x, heads=2, causal=True, epsilon=epsilon, drop=drop, **settings)
    assert_close(found, expected)


@pytest.mark.parametrize(
    ("layer", "norm", "epsilon"), [(nn.LayerNorm, "layer", 1e-5), (nn.RMSNorm, "rms", 1e-6)], ids=["layer", "rms"]
)
def test_norms_and_their_epsilon(layer, norm, epsilon, xp):
    """On numbers so small that the epsilon decides."""
    x = draw(3, 8) * 1e-3
    module, parameters = made(layer, 8)
    assert_close(module(Tensor(xp.from_host(x))), plain.normalise(parameters, x, norm=norm, epsilon=epsilon))
    first, second = xp.from_host(0.25 * x), xp.from_host(0.75 * x)  # the same numbers as a sum
    expected = plain.normalise(parameters, x, norm=norm, epsilon=epsilon)
    assert_close(module(Tensor(first), residual=Tensor(second)), expected)


@pytest.mark.parametrize("name", nn.ACTIVATIONS)
def test_activation_of_that_name(name, xp):
    x = np.linspace(-6.0, 6.0, 121)
    assert_close(nn.ACTIVATIONS[name](Tensor(xp.from_host(x))), plain.elementwise(plain.ACTIVATIONS[name], x))


def test_embedding_looks_up_rows_and_linear_multiplies(xp):
    ids, x = np.array([[4, 0], [4, 2]]), draw(2, 3, 4)
    embedding, table = made(nn.Embedding, 5, 4)
    np.testing.assert_array_equal(embedding(xp.from_host(ids)).numpy(), table["weight"][ids])
    linear, parameters = made(nn.Linear, 4, 6)
    expected = np.einsum("btd,df->btf", x, parameters["weight"]) + parameters["bias"]
    assert_close(linear(Tensor(xp.from_host(x))), expected)
