"""The layers: gradients of every parameter, shapes, names, and what attention may see."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import Draw
from tinyformer import Tensor, backward, check_gradients, functional, nn, no_grad, ops


def initializer():
    return nn.Initializer("any", "float64", seed=1)


LAYERS = {
    "linear": (lambda init: nn.Linear(4, 3, init), lambda layer, x, draw: layer(x)),
    "linear without bias": (lambda init: nn.Linear(4, 3, init, bias=False), lambda layer, x, draw: layer(x)),
    "embedding": (
        lambda init: nn.Embedding(5, 4, init),
        lambda layer, x, draw: layer(draw.xp.from_host(np.array([[0, 2], [2, 4]]))) * ops.sum(x),
    ),
    "layer norm": (lambda init: nn.LayerNorm(4, init), lambda layer, x, draw: layer(x)),
    "layer norm without bias": (lambda init: nn.LayerNorm(4, init, bias=False), lambda layer, x, draw: layer(x)),
    "rms norm": (lambda init: nn.RMSNorm(4, init), lambda layer, x, draw: layer(x)),
    "feed-forward": (lambda init: nn.FeedForward(4, 8, "gelu-exact", init), lambda layer, x, draw: layer(x)),
    "gated feed-forward": (
        lambda init: nn.FeedForward(4, 6, "silu", init, gated=True),
        lambda layer, x, draw: layer(x),
    ),
    "attention": (lambda init: nn.Attention(4, 2, init), lambda layer, x, draw: layer(x)),
    "causal attention": (lambda init: nn.Attention(4, 2, init), lambda layer, x, draw: layer(x, causal=True)),
    "padded attention": (
        lambda init: nn.Attention(4, 2, init),
        lambda layer, x, draw: layer(x, mask=draw.xp.from_host(np.array([True, True, False]))),
    ),
    "cross-attention": (
        lambda init: nn.Attention(4, 2, init),
        lambda layer, x, draw: layer(x, memory=layer.keys_values(x[:, :2] * 2.0)),
    ),
    "rotary attention": (
        lambda init: nn.Attention(4, 2, init),
        lambda layer, x, draw: layer(
            x, causal=True, angles=nn.rotary_angles(draw.xp, draw.xp.arange(3), 2, draw.xp.float64)
        ),
    ),
    "biased attention": (
        lambda init: nn.Attention(4, 2, init, scaled=False),
        lambda layer, x, draw: layer(x, bias=ops.sum(x * x) * Tensor(draw.xp.ones((1, 2, 3, 3))) * 0.1),
    ),
    "relative positions": (
        lambda init: nn.RelativePositions(2, init, buckets=8, max_distance=5, bidirectional=True, std=1.0),
        lambda layer, x, draw: layer(draw.xp.arange(7), draw.xp.arange(9)) * ops.sum(x),
    ),
    "cross-attention block": (
        lambda init: nn.Block(4, 2, 8, init, cross=True, std=None, residual_std=None),
        lambda layer, x, draw: layer(x, causal=True, memory=x[:, :2] * 2.0),
    ),
    "wide heads": (lambda init: nn.Attention(4, 2, init, head_width=6), lambda layer, x, draw: layer(x)),
    "pre-norm block": (lambda init: nn.Block(4, 2, 8, init), lambda layer, x, draw: layer(x, causal=True)),
    "post-norm block": (
        lambda init: nn.Block(4, 2, 8, init, pre_norm=False, norm="rms", bias=False),
        lambda layer, x, draw: layer(x),
    ),
    "dropout in a block": (
        lambda init: nn.Block(4, 2, 8, init, dropout=0.3),
        lambda layer, x, draw: layer(x, rng=draw.xp.generator(7)),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
@given(data=st.data())
def test_gradients(name, xp, data):
    """With respect to the input and to every parameter, at random values of all of them."""
    draw = Draw(xp, data)
    make, call = LAYERS[name]
    layer = make(initializer())
    names = list(layer.parameters())
    starts = [draw.normal(*p.shape) * 0.5 for p in layer.parameters().values()]

    def function(x, *values):
        for path, value in zip(names, values, strict=True):
            *owners, attribute = path.split(".")
            owner = layer
            for step in owners:
                owner = getattr(owner, step)
            setattr(owner, attribute, value)
        return call(layer, x, draw)

    check_gradients(function, draw.normal(2, 3, 4), *starts)


def test_every_layer_is_here():
    made = {type(make(initializer())).__name__ for make, _ in LAYERS.values()}
    classes = {name for name in nn.__all__ if isinstance(getattr(nn, name), type)}
    assert classes - {"Cache", "Initializer", "KeysValues", "LayerCache", "Module"} == made


def test_parameters_are_named_by_their_path():
    block = nn.Block(4, 2, 8, initializer())
    assert list(block.parameters())[:4] == [
        "attention_norm.weight",
        "attention_norm.bias",
        "attention.query.weight",
        "attention.query.bias",
    ]
    assert "attention.query.weight: (4, 4)" in repr(block)
    block.more = {"a": (nn.Linear(2, 2, initializer(), bias=False),)}
    assert list(block.parameters())[-1] == "more.a.0.weight"
    del block.more
    block.again = block.attention
    assert len(block.parameters()) == 16, "a shared parameter comes once"


def test_assign_copies_or_explains():
    layer = nn.Linear(2, 3, initializer())
    layer.assign({"weight": np.ones((2, 3)), "bias": np.arange(3.0)})
    np.testing.assert_array_equal(layer.bias.numpy(), [0, 1, 2])
    with pytest.raises(ValueError, match="there is no array for bias"):
        layer.assign({"weight": np.ones((2, 3))})
    with pytest.raises(ValueError, match="the model has no parameter extra"):
        layer.assign({"weight": np.ones((2, 3)), "bias": np.ones(3), "extra": np.ones(1)})
    with pytest.raises(ValueError, match=r"weight has shape \(2, 3\), and the array \(3, 2\)"):
        layer.assign({"weight": np.ones((3, 2)), "bias": np.ones(3)})
    np.testing.assert_array_equal(layer.bias.numpy(), [0, 1, 2])


def test_a_query_that_may_look_nowhere_gets_zeros(xp):
    q = Tensor(xp.from_host(np.random.default_rng(0).standard_normal((1, 1, 2, 4))), requires_grad=True)
    mask = xp.from_host(np.array([[True, True], [False, False]]))
    out = functional.attention(q, q, q, mask)
    np.testing.assert_array_equal(out.numpy()[0, 0, 1], 0.0)
    gradient = xp.to_host(backward(ops.sum(out * out))[q])
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[0, 0, 0]).max() > 0


def test_padding_changes_nothing_for_real_positions(xp):
    attention = nn.Attention(8, 2, initializer())
    x = np.random.default_rng(0).standard_normal((1, 5, 8))
    short = attention(Tensor(xp.from_host(x[:, :3]))).numpy()
    mask = xp.from_host(np.array([True, True, True, False, False]))
    np.testing.assert_allclose(attention(Tensor(xp.from_host(x)), mask=mask).numpy()[:, :3], short, atol=1e-12)


def test_dropout_keeps_the_mean_and_the_stream_decides(xp):
    x = Tensor(xp.ones((400, 100)))
    dropped = nn.dropout(x, 0.25, xp.generator(1, 2)).numpy()
    assert set(np.unique(dropped)) == {0.0, np.float64(1 / 0.75)}
    assert dropped.mean() == pytest.approx(1.0, abs=0.01)
    np.testing.assert_array_equal(dropped, nn.dropout(x, 0.25, xp.generator(1, 2)).numpy())
    assert (dropped != nn.dropout(x, 0.25, xp.generator(1, 3)).numpy()).any()
    assert nn.dropout(x, 0.25, None) is x


def test_sinusoidal_positions_are_the_paper_s(xp):
    table = xp.to_host(nn.sinusoidal(xp, xp.arange(50), 6, xp.float64))
    for position in (0, 1, 49):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            assert table[position, 2 * i] == pytest.approx(np.sin(angle), abs=1e-12)
            assert table[position, 2 * i + 1] == pytest.approx(np.cos(angle), abs=1e-12)


def test_far_positions_are_exact_in_single_precision(xp):
    """An angle of 10^6 itself has no digit left behind the point there."""
    far = xp.asarray([10**6 - 1, 10**6])
    table = xp.to_host(nn.sinusoidal(xp, far, 4, xp.float32))
    angles = np.array([[10**6 - 1.0], [10**6]]) / [1, 100]
    np.testing.assert_allclose(table[:, ::2], np.sin(angles), atol=1e-6)
    np.testing.assert_allclose(table[:, 1::2], np.cos(angles), atol=1e-6)
    cosines, sines = (xp.to_host(x) for x in nn.rotary_angles(xp, far, 4, xp.float32))
    np.testing.assert_allclose(sines, table[:, ::2], atol=1e-6)
    np.testing.assert_allclose(cosines, table[:, 1::2], atol=1e-6)


def test_rotary_products_depend_on_the_distance_alone(xp):
    rng = np.random.default_rng(0)
    q, k = (xp.from_host(np.broadcast_to(rng.standard_normal(8), (1, 1, 12, 8)).copy()) for _ in range(2))
    angles = nn.rotary_angles(xp, xp.arange(12), 8, xp.float64)
    q, k = (functional.rotary(Tensor(x), *angles).numpy()[0, 0] for x in (q, k))
    products = q @ k.T
    for distance in range(-11, 12):
        np.testing.assert_allclose(np.diff(np.diagonal(products, distance)), 0.0, atol=1e-10)
    assert np.std(products) > 0.1


def test_cache_that_is_full_says_so(xp):
    cache = nn.LayerCache((1, 1, 2, 2), xp, xp.float64)
    with no_grad(), pytest.raises(ValueError, match="the cache holds 2 positions, and 3 were to be stored"):
        cache.append(xp.ones((1, 1, 3, 2)), xp.ones((1, 1, 3, 2)))
    assert cache.length == 0


def test_a_cache_is_for_inference(xp):
    attention = nn.Attention(4, 2, initializer())
    with pytest.raises(RuntimeError, match="a cache keeps no gradients"):
        attention(Tensor(xp.ones((1, 2, 4))), cache=nn.LayerCache((1, 2, 4, 2), xp, xp.float64))
