"""What config.json and the names of a RoFormer say; its numbers are compared with transformers' in the oracle tests."""

import numpy as np
import pytest

from tests.interop.test_families import Named
from tinyformer.errors import UsageError
from tinyformer.interop import heads
from tinyformer.interop.roformer import ROFORMER
from tinyformer.interop.table import from_theirs, to_theirs
from tinyformer.models import resolve


def test_options_that_are_not_said_are_those_of_the_published_class():
    """As transformers' RoFormerConfig has them."""
    config = ROFORMER.config({}, Named())
    assert (config.vocabulary, config.context, config.layers, config.heads) == (50000, 1536, 12, 12)
    assert (config.width, config.hidden, config.segments, config.epsilon) == (768, 3072, 2, 1e-12)
    assert (config.positions, config.norm_position, config.activation) == ("rotary", "post", "gelu-exact")
    assert config.tied
    assert not config.next_sentence


def test_an_embedding_of_another_width_is_refused():
    same = {"hidden_size": 24, "num_attention_heads": 2, "embedding_size": 24}
    assert ROFORMER.config(same, Named()).width == 24
    with pytest.raises(UsageError, match=r"^x: an embedding_size of 12 is not supported, only the hidden_size 24$"):
        ROFORMER.config(same | {"embedding_size": 12}, Named())
    with pytest.raises(UsageError, match=r"only the hidden_size 768$"):
        ROFORMER.config({"embedding_size": 12}, Named())


def test_what_is_written_of_a_model():
    shape = resolve(mode="encoder", vocabulary=9, width=16, heads=2, layers=1, context=5)
    written = ROFORMER.config_json(shape)
    assert written["architectures"] == ["RoFormerForMaskedLM"]
    assert (written["embedding_size"], written["rotary_value"], written["model_type"]) == (16, False, "roformer")
    assert ROFORMER.config(written, Named()) == shape
    (name, table), *others = ROFORMER.constants(shape).items()
    assert (name, others) == ("roformer.encoder.embed_positions.weight", [])
    angles = np.arange(5)[:, None] * 10000.0 ** (-np.arange(0, 8, 2) / 8)
    np.testing.assert_allclose(table, np.concatenate([np.sin(angles), np.cos(angles)], axis=1), atol=1e-6)
    assert ROFORMER.leftover(Named(name), set()) == []
    assert heads.options(ROFORMER, "tag", ["O"])["architectures"] == ["RoFormerForTokenClassification"]


def test_channels_that_are_turned_together_lie_side_by_side_there():
    """Of 2 heads of 4 channels, ours 0 with 2 and 1 with 3."""
    shape = resolve(mode="encoder", vocabulary=9, width=8, heads=2, layers=1, context=5)
    rows = {row.ours: row for row in ROFORMER.rows(shape)}
    name = "stack.blocks.0.attention.query.bias"
    there = to_theirs([rows[name]], {name: np.arange(8)})[rows[name].theirs]
    assert there.tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert from_theirs(rows[name], there).tolist() == list(range(8))
    name = "stack.blocks.0.attention.value.bias"
    assert to_theirs([rows[name]], {name: np.arange(8)})[rows[name].theirs].tolist() == list(range(8))
    assert "stack.positions.weight" not in rows
