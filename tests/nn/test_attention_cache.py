"""What a cache copies when rows move, and how rows that share a memory ask it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyformer import Tensor, fused, nn, no_grad


def filled_cache(xp, rows, length, capacity=6):
    """A cache whose row i holds the same drawn keys and values as row i of the returned array, `2 b h s c`."""
    drawn = np.random.default_rng(rows).standard_normal((2, rows, 2, length, 3))
    cache = nn.LayerCache((rows, 2, capacity, 3), xp, xp.float64)
    cache.append(*(xp.from_host(x) for x in drawn))
    return cache, drawn


@given(rows=st.integers(1, 4), length=st.integers(1, 4), data=st.data())
def test_rows_go_on_as_any_of_the_old_ones(xp, rows, length, data):
    cache, drawn = filled_cache(xp, rows, length)
    for _ in range(3):  # grows, shrinks, repeats and permutes
        chosen = np.array(data.draw(st.lists(st.integers(0, drawn.shape[1] - 1), min_size=1, max_size=6)))
        cache.select(chosen)
        drawn = drawn[:, chosen]
        more = np.random.default_rng(len(chosen)).standard_normal((2, len(chosen), 2, 1, 3))
        if drawn.shape[3] < 6:
            drawn = np.concatenate([drawn, more], axis=3)
            seen = cache.append(*(xp.from_host(x) for x in more))
            np.testing.assert_array_equal([xp.to_host(x.array) for x in seen], drawn)


def test_rows_that_stay_keep_their_memory(xp):
    cache, _ = filled_cache(xp, 3, 2)
    before = cache.keys
    cache.select(np.array([0, 0, 2]))
    cache.keys[2, ...] = 5.0
    assert (xp.to_host(before[2, ...]) == 5).all()


def test_a_shortened_cache_goes_on_where_it_was(xp):
    layers, drawn = zip(*(filled_cache(xp, 2, 4) for _ in range(2)))
    cache = nn.Cache(list(layers))
    cache.shorten(5)
    assert cache.length == 4
    cache.shorten(3)
    more = np.full((2, 2, 2, 1, 3), 7.0)
    for layer, old in zip(layers, drawn):
        expected = np.concatenate([old[:, :, :, :3], more], axis=3)
        seen = layer.append(*(xp.from_host(x) for x in more))
        np.testing.assert_array_equal([xp.to_host(x.array) for x in seen], expected)


@pytest.mark.parametrize("way", ["plain", "unscaled", "masked", "biased", "causal"])
def test_rows_that_share_a_memory_ask_it_in_one_product(xp, monkeypatch, way):
    asked = []

    def attention(query, *inputs, **settings):
        asked.append(query.shape)
        return fused.registry["attention"](query, *inputs, **settings)

    monkeypatch.setattr(fused, "attention", attention)
    look = nn.Attention(8, 2, nn.Initializer("any", "float64", seed=1), scaled=way != "unscaled", std=1.0)
    rng = np.random.default_rng(0)
    x, source, bias = (Tensor(xp.from_host(rng.standard_normal(n))) for n in [(3, 2, 8), (1, 5, 8), (1, 2, 2, 5)])
    settings = {
        "masked": {"mask": xp.from_host(np.arange(5) < 4)[None, None, None, :]},
        "biased": {"bias": bias},
        "causal": {"causal": True},
    }.get(way, {})
    with no_grad():
        seen = look.keys_values(source)
        found = look(x, memory=seen, **settings).numpy()
        one_by_one = [look(x[i : i + 1], memory=seen, **settings).numpy() for i in range(3)]
    np.testing.assert_allclose(found, np.concatenate(one_by_one), atol=1e-12)
    assert asked[0] == ((1, 2, 6, 4) if way in ("plain", "unscaled") else (3, 2, 2, 4))


def test_a_linear_maps_weight_lies_by_outputs_and_has_the_numbers_of_its_seed():
    layer = nn.Linear(4, 3, nn.Initializer("any", "float64", seed=7), std=0.5)
    drawn = nn.Initializer("any", "float64", seed=7).normal(4, 3, std=0.5).numpy()
    np.testing.assert_array_equal(layer.weight.numpy(), drawn)
    assert layer.weight.numpy().T.flags.c_contiguous
