"""From a preset and a few sizes to a whole configuration."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyformer import UsageError
from tinyformer.models import PRESETS, ModelConfig, default_learning_rate, resolve
from tinyformer.models.config import CHOICES
from tinyformer.models.presets import FAMILIES

OURS = [name for name, row in PRESETS.items() if "mode" not in row]
PUBLISHED = [name for name in PRESETS if name not in OURS]
MODES = CHOICES["mode"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "gpt-2"}, "unknown preset 'gpt-2'; did you mean 'gpt2'?"),
        ({"heads": 3}, "3 heads do not divide a width of 128; try 2 heads"),
        ({"layers": 0}, "layers must be at least 1, and is 0"),
        ({"layers": 10**23}, "layers must be at most 1073741824, and is 100000000000000000000000"),
        ({"width": 10**23, "layers": 1, "heads": 1}, "width must be at most 1073741824"),
        ({"width": -4}, "width must be at least 1, and is -4"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), and is 1.0"),
        ({"norm": "batch"}, "unknown norm 'batch'; known are layer, rms"),
        ({"positions": "learnt"}, "unknown positions 'learnt'; did you mean 'learned'?"),
        ({"wdith": 3}, "unknown setting 'wdith'; did you mean 'width'?"),
        (
            {"width": 6, "heads": 2, "positions": "rotary"},
            "need an even width per head, and 6 / 2 is 3; try a width of 8",
        ),
        ({"width": 7, "heads": 1, "positions": "sinusoidal"}, "need an even width, and it is 7; try 8"),
        ({"width": 128.0, "hidden": 512, "heads": 4}, "width must be a whole number, and is 128.0"),
        ({"heads": True}, "heads must be a whole number, and is True"),
    ],
)
def test_bad_sizes_are_one_clear_line(given, message):
    with pytest.raises(UsageError, match=message.replace("?", r"\?")) as caught:
        resolve(**{"vocabulary": 65, "preset": None} | given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "buckets", "max_distance"),
    [("decoder", 1, 9), ("decoder", 8, 4), ("encoder", 3, 9), ("encoder", 8, 2), ("encoder-decoder", 8, 4)],
)
def test_relative_positions_need_buckets_and_distances(mode, buckets, max_distance):
    settings = {"mode": mode, "positions": "relative", "vocabulary": 9}
    with pytest.raises(UsageError, match="relative positions need at least 4 buckets and a max_distance above"):
        ModelConfig(**settings, buckets=buckets, max_distance=max_distance)
    least = {"decoder": 2, "encoder": 4, "encoder-decoder": 4}[mode]
    ModelConfig(**settings, buckets=max(buckets, least), max_distance=max_distance + 1)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            {"preset": "bert-base", "mode": "decoder"},
            "the preset 'bert-base' is of mode encoder; for mode decoder there",
        ),
        ({"preset": "gpt2", "mode": "encoder"}, "there are tiny, small, medium, bert-tiny, .*, bert-large$"),
        ({"preset": "t5-small", "mode": "encoder"}, "of mode encoder-decoder; for mode encoder there are tiny"),
        ({"preset": "bert-large", "mode": "encoder-decoder"}, "transformer-base, .*, t5-small, .*, t5-v1.1-xxl$"),
        ({"mode": "encodr"}, "unknown mode 'encodr'; did you mean 'encoder'?"),
        ({"preset": "tiny", "next_sentence": True}, "belongs to an encoder"),
    ],
)
def test_a_preset_in_another_mode_is_one_clear_line(args, message):
    with pytest.raises(UsageError, match=message.replace("?", r"\?")) as caught:
        resolve(vocabulary=65, **args)
    assert "\n" not in str(caught.value)


def test_vocabulary_is_needed():
    with pytest.raises(UsageError, match="the vocabulary is not known"):
        resolve("tiny")


@given(
    width=st.one_of(st.none(), st.integers(1, 64).map(lambda n: 2 * n), st.sampled_from([192, 384, 512, 768, 1000])),
    layers=st.one_of(st.none(), st.integers(1, 30)),
)
def test_one_dial_gives_a_whole_model(width, layers):
    config = resolve(vocabulary=100, width=width, layers=layers)
    assert config.width == width if width else True
    assert config.layers == layers if layers else True
    assert config.hidden == 4 * config.width
    channels = config.width // config.heads
    assert channels % 2 == 0
    assert channels >= 14 or config.width < 32  # a width of 98 has no nearer divisor
    assert channels <= 64 or config.width % 64
    assert 0 < default_learning_rate(config) <= 0.01


def test_default_learning_rates():
    """What was measured at width 128 (the docstring), and lower for wider models."""
    assert default_learning_rate(resolve(vocabulary=9)) == 3e-3
    assert default_learning_rate(resolve(vocabulary=9, mode="encoder")) == 2e-3
    assert default_learning_rate(resolve(vocabulary=9, mode="encoder", positions="learned")) == 1e-3
    assert default_learning_rate(resolve("bert-base")) == 2e-4
    assert default_learning_rate(resolve("gpt3-small")) == 7e-4


def test_an_encoder_of_ours_turns_and_a_published_one_learns_its_positions():
    assert (
        resolve(vocabulary=9, mode="encoder", width=64).positions
        == resolve("small", vocabulary=9, mode="encoder").positions
        == "rotary"
    )
    assert resolve("bert-mini").positions == resolve("bert-mini", width=128).positions == "learned"


@pytest.mark.parametrize(
    ("given", "layers", "width"),
    [
        ({}, 2, 128),
        ({"preset": "small"}, 3, 384),
        ({"layers": 3}, 3, 384),
        ({"width": 512}, 4, 512),
        ({"width": 64}, 1, 64),
    ],
)
def test_an_encoder_decoder_has_half_of_the_layers_in_each_stack(given, layers, width):
    config = resolve(mode="encoder-decoder", vocabulary=9, **given)
    assert (config.layers, config.decoder_layers, config.width) == (layers, None, width)


def test_without_a_mode_a_size_of_ours_is_a_decoder_and_a_published_model_itself():
    assert resolve("tiny", vocabulary=9) == resolve(vocabulary=9) == resolve("tiny", mode="decoder", vocabulary=9)
    assert resolve("bert-tiny") == resolve("bert-tiny", mode="encoder")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OURS)
def test_a_size_of_ours_is_made_into_the_family_of_its_mode(name, mode):
    config = resolve(name, mode=mode, vocabulary=100)
    assert config.hidden == 4 * config.width
    stacks = 2 if mode == "encoder-decoder" else 1
    for field, value in (FAMILIES[mode] | PRESETS[name] | {"layers": PRESETS[name]["layers"] // stacks}).items():
        assert getattr(config, field) == value


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_is_what_its_row_says(name):
    config, row = resolve(name), PRESETS[name]
    assert config == ModelConfig(**{"hidden": 4 * config.width} | row)
    assert config.mode == row["mode"]
    assert config.heads * config.channels == config.width or "head_width" in row


@pytest.mark.parametrize(
    ("preset", "width", "heads", "channels", "hidden"),
    [
        ("t5-small", 256, 4, 64, 1024),  # a width of its own has the same proportions
        ("t5-3b", 512, 8, 64, 8192),  # and heads that share it evenly
        ("t5-3b", 1024, 32, 128, 16384),  # its own width changes nothing
        ("t5-v1.1-small", 256, 4, 64, 512),  # a gated network is less than four times as wide
        ("t5-v1.1-base", 384, 6, 64, 1024),
        ("gpt3-2.7b", 2560, 32, 80, 10240),
        ("gpt2", 128, 4, 32, 512),
    ],
)
def test_a_width_for_a_preset_keeps_its_proportions(preset, width, heads, channels, hidden):
    config = resolve(preset, width=width)
    assert (config.width, config.heads, config.channels, config.hidden) == (width, heads, channels, hidden)
    assert config.layers == PRESETS[preset]["layers"]


def test_what_is_given_beats_what_a_width_derives():
    config = resolve("t5-11b", width=64, heads=4, head_width=24, hidden=100, layers=2, decoder_layers=1)
    assert (config.heads, config.channels, config.hidden, config.decoder_layers) == (4, 24, 100, 1)


@given(
    st.sampled_from([(name, mode) for name in [None, *OURS] for mode in MODES] + [(name, None) for name in PUBLISHED]),
    st.fixed_dictionaries(
        {},
        optional={
            "width": st.sampled_from([64, 96, 1024, 2048]),
            "layers": st.integers(1, 9),
            "context": st.just(64),
            "hidden": st.just(99),
        },
    ),
)
def test_the_settings_that_a_run_writes_down_resolve_to_themselves(chosen, sizes):
    preset, mode = chosen
    config = resolve(preset, mode=mode, **{"vocabulary": 77} | sizes)
    assert resolve(preset, **dataclasses.asdict(config)) == config
