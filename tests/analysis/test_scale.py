import math

import pytest

from tinyformer.analysis import scale
from tinyformer.analysis.counts import count_parameters
from tinyformer.models import PRESETS, resolve

TABLE = {row.preset: row for row in scale.scale_table()}

# The GPT-3 paper's table D.1: petaflop/s-days, and FLOPs for each parameter and token.
D1 = {
    "t5-small": (2.08, 3),
    "t5-base": (7.64, 3),
    "t5-large": (26.7, 3),
    "t5-3b": (104, 3),
    "t5-11b": (382, 3),
    "bert-base": (1.89, 6),
    "bert-large": (6.16, 6),
    "gpt3-small": (2.60, 6),
    "gpt3-medium": (7.42, 6),
    "gpt3-large": (15.8, 6),
    "gpt3-xl": (27.5, 6),
    "gpt3-2.7b": (55.2, 6),
    "gpt3-6.7b": (139, 6),
    "gpt3-13b": (268, 6),
    "gpt3-175b": (3640, 6),
}


def test_the_chapters_models_are_in_the_table():
    assert TABLE.keys() >= {"gpt1", "bert-base", "bert-large", "gpt2-xl", "t5-base", "t5-large", "t5-11b", "gpt3-175b"}
    assert TABLE.keys() <= PRESETS.keys()


@pytest.mark.parametrize("name", D1)
def test_the_printed_figures_agree_with_each_other(name):
    """So that a slip in copying them shows: FLOPs and days follow from parameters and tokens as printed."""
    days, factor = D1[name]
    parameters, tokens, flops = TABLE[name].printed
    assert flops == pytest.approx(factor * parameters * 1e6 * tokens * 1e9, rel=0.005)
    assert flops / scale.PETAFLOPS_DAY == pytest.approx(days, rel=0.005)


@pytest.mark.parametrize("name", D1)
def test_flops_follow_from_exact_parameters_and_are_near_the_printed_ones(name):
    row, (days, factor) = TABLE[name], D1[name]
    assert row.flops == factor * row.parameters * row.tokens
    assert row.petaflops_days == row.flops / (1e15 * 86400)
    off = abs(row.petaflops_days / days - 1)
    assert off < 0.015 or (name in ("t5-large", "t5-3b", "t5-11b", "bert-large") and off < 0.06)


def test_what_is_not_published_is_not_made_up():
    unknown = {name for name, row in TABLE.items() if row.tokens is None}
    assert unknown == {"gpt1", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"}
    assert all(TABLE[name].flops is TABLE[name].petaflops_days is None for name in unknown)


def test_the_misprints_are_as_the_notes_say():
    notes = scale.notes()
    assert "355,359,744" in notes["bert-large"]  # RoBERTa-Large's published count
    assert round(355_359_744 / 1e6) == TABLE["bert-large"].printed.parameters
    assert "770,567,168" in notes["t5-large"]
    assert count_parameters(resolve("t5-large", tied=False)) == 770_567_168
    assert "5140" in notes["gpt3-13b"]
    assert 5140 % 40 != 0
    assert round(TABLE["gpt3-13b"].parameters / 1e7) == 1285
    assert "24 heads" in notes["gpt3-xl"]
    assert 24 * 128 != TABLE["gpt3-xl"].config.width == 16 * 128


def test_every_note_is_about_a_column_or_a_row():
    columns = {"parameters", "printed", "tokens", "FLOPs", "PF/s-days"}
    assert scale.notes().keys() - columns <= TABLE.keys()
    assert math.isclose(scale.PETAFLOPS_DAY, 8.64e19)
