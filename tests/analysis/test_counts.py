import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyformer import backends, backward, fused
from tinyformer.analysis import counts
from tinyformer.models import ModelConfig, build, resolve


@st.composite
def configs(draw):
    heads = draw(st.integers(1, 3))
    return ModelConfig(
        vocabulary=draw(st.integers(1, 40)),
        context=draw(st.integers(1, 20)),
        layers=draw(st.integers(1, 3)),
        heads=heads,
        width=heads * draw(st.integers(1, 4)) * 2,
        hidden=draw(st.integers(1, 30)),
        norm=draw(st.sampled_from(["layer", "rms"])),
        norm_position=draw(st.sampled_from(["pre", "post"])),
        positions=draw(st.sampled_from(["learned", "sinusoidal", "rotary", "none"])),
        gated=draw(st.booleans()),
        bias=draw(st.booleans()),
        tied=draw(st.booleans()),
    )


@given(configs())
def test_the_formulas_count_what_a_built_model_has(config):
    built = build(config).parameters()
    assert counts.count_parameters(config) == sum(p.array.size for p in built.values())
    parts = counts.parameters_by_part(config)
    assert parts["norms"] == sum(p.array.size for name, p in built.items() if "norm" in name)
    assert parts["attention"] == sum(p.array.size for name, p in built.items() if ".attention." in name)
    assert parts["feed-forward"] == sum(p.array.size for name, p in built.items() if ".feed_forward." in name)


@pytest.mark.parametrize(
    ("preset", "published"),
    [
        ("gpt1", 116_534_784),
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
        ("gpt3-small", 125_226_240),
        ("gpt3-2.7b", 2_651_553_280),
        ("gpt3-6.7b", 6_658_404_352),
        ("gpt3-13b", 12_853_386_240),
        ("gpt3-175b", 174_604_259_328),
    ],
)
def test_published_parameter_counts(preset, published):
    assert counts.count_parameters(resolve(preset)) == published


def test_the_published_sizing_of_gpt2_without_biases():
    """nanoGPT's notebook `transformer_sizing`, at context 1024."""
    config = resolve("gpt2", bias=False)
    assert counts.count_parameters(config) == 124_337_664
    assert counts.forward_flops(config) == 291_648_307_200
    assert counts.training_flops(config, sequences=2) == 6 * 291_648_307_200


@given(configs(), st.integers(1, 20))
def test_flops_are_the_matrix_products_that_a_forward_pass_makes(config, tokens):
    """Worked out from the shapes of the built model's own matrices."""
    tokens = min(tokens, config.context)
    matrices = sum(
        p.array.size
        for name, p in build(config).parameters().items()
        if p.ndim == 2 and name not in ("tokens.weight", "stack.positions.weight", "head.output.weight")
    )
    attention = 2 * config.layers * config.heads * tokens**2 * (config.width // config.heads)
    expected = 2 * (tokens * (matrices + config.width * config.vocabulary) + attention)
    assert counts.forward_flops(config, tokens) == expected


def test_counting_the_largest_model_takes_no_memory():
    config = resolve("gpt3-175b")
    tracemalloc.start()
    counts.count_parameters(config)
    counts.forward_flops(config)
    counts.training_memory(config, 8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize(
    "given_",
    [
        {},
        {"layers": 1, "vocabulary": 2048},
        {"layers": 2, "norm": "layer", "bias": True, "positions": "learned", "dropout": 0.1},
        {"layers": 2, "hidden": 1024, "activation": "relu"},
        {"layers": 2, "activation": "silu", "gated": True},
        {"layers": 2, "heads": 8, "context": 256, "norm_position": "post"},
    ],
)
def test_a_training_step_takes_the_estimated_memory_within_a_factor_of_one_and_a_half(given_):
    config = resolve("tiny", **({"vocabulary": 256} | given_))
    model, batch = build(config), 4
    ids = np.random.default_rng(0).integers(0, config.vocabulary, (batch, config.context))
    rng = backends.get("numpy").generator(0, 1) if config.dropout else None

    def step():
        loss = fused.cross_entropy(model(ids, rng=rng), ids)
        return backward(loss)

    step()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    step()
    taken = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    estimate = counts.training_memory(config, batch)
    assert taken / 1.5 < estimate["activations"] + estimate["gradients"] < taken * 1.5


def test_the_cache_holds_what_is_said():
    config = resolve("tiny", vocabulary=10, layers=3)
    cache = build(config).new_cache(2)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert counts.generation_memory(config, 2)["key/value cache"] == held
