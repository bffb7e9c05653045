"""Who sees whom: every mode is probed by changing one token, or one embedding, and looking at what changes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models.test_values import BERT, ENCODER_DECODERS, ENCODERS, T5
from tinyformer import no_grad
from tinyformer.models import ModelConfig, build

SEEDS = st.integers(0, 2**32 - 1)
V = 19


def made(choices, dtype="float32", context=80):
    """A model whose weights are so large that whatever is seen shows."""
    sizes = {"vocabulary": V, "context": context, "layers": 2, "heads": 2, "width": 12, "hidden": 16}
    model, rng = build(ModelConfig(**sizes | choices), dtype=dtype), np.random.default_rng(3)
    model.assign({name: rng.standard_normal(p.shape) * 0.4 for name, p in model.parameters().items()})
    return model


def draw_ids(rng, *shape):
    return rng.integers(0, V, shape)


def other(ids, where):
    """The same ids with others at some places."""
    changed = ids.copy()
    changed[where] = (changed[where] + 7) % V
    return changed


def changed_rows(before, after):
    """Positions whose logits differ, `b t`."""
    return (before != after).any(axis=-1)


def lengths(rng, batch, most):
    """A mask of rows with 1 to `most` real tokens, and one row that has them all."""
    count = rng.integers(1, most + 1, batch)
    count[0] = most
    return np.arange(most) < count[:, None]


@pytest.mark.parametrize("variant", ENCODERS)
@given(seed=SEEDS, position=st.integers(0, 69))
def test_an_encoder_position_sees_every_position(variant, seed, position):
    ids, model = draw_ids(np.random.default_rng(seed), 1, 70), made(ENCODERS[variant])
    with no_grad():
        before, after = (model(x).numpy() for x in (ids, other(ids, (0, position))))
    assert changed_rows(before, after).mean() > 0.95, "float32 may round one away"


@pytest.mark.parametrize("variant", ENCODERS)
@given(seed=SEEDS)
def test_an_encoder_position_sees_no_padding(variant, seed):
    """Bit for bit, whatever stands there, also across the blocks that the attention kernel works in."""
    rng, model = np.random.default_rng(seed), made(ENCODERS[variant])
    ids, mask = draw_ids(rng, 3, 70), lengths(rng, 3, 70)
    with no_grad():
        before, after = (model(x, mask=mask).numpy() for x in (ids, other(ids, ~mask)))
    np.testing.assert_array_equal(before[mask], after[mask])


@pytest.mark.parametrize("variant", ENCODERS)
@given(seed=SEEDS, more=st.integers(1, 20))
def test_more_padding_changes_an_encoder_by_rounding_only(variant, seed, more):
    rng, model = np.random.default_rng(seed), made(ENCODERS[variant])
    ids, mask = draw_ids(rng, 2, 40), lengths(rng, 2, 40)
    longer = np.concatenate([ids, draw_ids(rng, 2, more)], axis=1), np.pad(mask, ((0, 0), (0, more)))
    with no_grad():
        short, long = model(ids, mask=mask).numpy(), model(longer[0], mask=longer[1]).numpy()
    np.testing.assert_allclose(long[:, :40][mask], short[mask], rtol=1e-6, atol=1e-6 * np.abs(short).max())


@pytest.mark.parametrize("variant", ENCODERS)
@given(seed=SEEDS, position=st.integers(0, 39))
def test_documents_in_a_row_do_not_see_each_other(variant, seed, position):
    rng, model = np.random.default_rng(seed), made(ENCODERS[variant])
    ids, documents = draw_ids(rng, 1, 40), np.sort(rng.integers(1, 4, (1, 40)), axis=1)
    with no_grad():
        before, after = (model(x, mask=documents).numpy() for x in (ids, other(ids, (0, position))))
    seen = changed_rows(before, after)[0]
    own = documents[0] == documents[0, position]
    assert not seen[~own].any()
    assert seen[own].all()


@pytest.mark.parametrize("variant", ENCODERS)
@given(seed=SEEDS)
def test_packed_documents_are_as_if_each_were_alone(variant, seed):
    rng, model = np.random.default_rng(seed), made(ENCODERS[variant], "float64")
    first, second = (draw_ids(rng, 1, size) for size in rng.integers(1, 20, 2))
    a, b = first.shape[1], second.shape[1]
    mask, positions = [np.repeat([[1, 2]], [a, b], axis=1), np.array([[*range(a), *range(b)]])]
    with no_grad():
        packed = model(np.concatenate([first, second], axis=1), mask=mask, positions=positions).numpy()
        alone = np.concatenate([model(first).numpy(), model(second).numpy()], axis=1)
    np.testing.assert_allclose(packed, alone, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("variant", ENCODER_DECODERS)
@given(seed=SEEDS, position=st.integers(0, 69))
def test_a_target_position_sees_none_later_and_the_whole_source(variant, seed, position):
    rng, model = np.random.default_rng(seed), made(ENCODER_DECODERS[variant])
    source, target = draw_ids(rng, 1, 9), draw_ids(rng, 1, 70)
    with no_grad():
        before = model(source, target).numpy()
        later = changed_rows(before, model(source, other(target, (0, position))).numpy())[0]
        from_source = changed_rows(before, model(other(source, (0, position % 9)), target).numpy())[0]
    assert not later[:position].any()
    assert later[position:].mean() > 0.95
    assert from_source.mean() > 0.95


@pytest.mark.parametrize("variant", ENCODER_DECODERS)
@given(seed=SEEDS)
def test_a_target_sees_no_padding_of_the_source(variant, seed):
    rng, model = np.random.default_rng(seed), made(ENCODER_DECODERS[variant])
    source, target, mask = draw_ids(rng, 3, 70), draw_ids(rng, 3, 9), lengths(rng, 3, 70)
    with no_grad():
        before, after = (model(x, target, mask=mask).numpy() for x in (source, other(source, ~mask)))
        row = model(source[1:2, : mask[1].sum()], target[1:2]).numpy()
    np.testing.assert_array_equal(before, after)
    np.testing.assert_allclose(before[1:2], row, rtol=1e-6, atol=1e-6 * np.abs(row).max())


@pytest.mark.parametrize("length", [4, 9, 12])
def test_a_mask_of_numbers_hides_the_padding_of_a_source(length):
    """0 and 1, as other libraries write it, with a target that is shorter, as long and longer."""
    rng, model = np.random.default_rng(0), made(T5)
    source, target, mask = draw_ids(rng, 3, 9), draw_ids(rng, 3, length), lengths(rng, 3, 9)
    with no_grad():
        found, expected = (model(source, target, mask=numbers).numpy() for numbers in (mask.astype(int), mask))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("variant", ENCODER_DECODERS)
@given(seed=SEEDS, pieces=st.lists(st.integers(1, 6), min_size=1, max_size=5), shared=st.booleans())
def test_cache_gives_the_same_logits_of_a_target(variant, seed, pieces, shared):
    """Also where one source serves several targets, and after rows have been reordered."""
    rng, model = np.random.default_rng(seed), made(ENCODER_DECODERS[variant], "float64", context=36)
    sources = 1 if shared else 3
    source, target, mask = draw_ids(rng, sources, 8), draw_ids(rng, 3, sum(pieces)), lengths(rng, sources, 8)
    rows = np.array([2, 0, 2])
    with no_grad():
        memory = model.encode(source, mask=mask)
        cache, found, start = model.new_cache(3, memory), [], 0
        for size in pieces:
            found.append(model.decode(target[:, start : start + size], None, mask=mask, cache=cache).numpy())
            start += size
        whole = model(np.repeat(source, 3 // sources, axis=0), target, mask=np.repeat(mask, 3 // sources, axis=0))
        np.testing.assert_allclose(np.concatenate(found, axis=1), whole.numpy(), rtol=1e-9, atol=1e-11)
        cache.select(rows)
        mask = mask if shared else mask[rows]
        last = model.decode(target[rows][:, :1], None, mask=mask, cache=cache, last_only=True).numpy()
        again = np.concatenate([target, target[:, :1]], axis=1)[rows]
        again[:, -1] = target[rows][:, 0]
        repeated = np.repeat(source, 3, axis=0) if shared else source[rows]
        expected = model(repeated, again, mask=np.repeat(mask, 3 // len(mask), axis=0)).numpy()[:, -1:]
    np.testing.assert_allclose(last, expected, rtol=1e-9, atol=1e-11)


def test_what_a_model_refuses():
    ids = np.zeros((1, 3), int)
    with pytest.raises(ValueError, match="there are 80 learned positions, and 81 tokens"):
        made(BERT)(np.zeros((1, 81), int))
    with pytest.raises(ValueError, match="this model embeds none"):
        made(T5)(ids, ids, segments=ids)
    without = made(BERT | {"next_sentence": False})
    with pytest.raises(ValueError, match="this encoder has no next-sentence head"):
        without.next_sentence_logits(without.hidden(ids))
    with pytest.raises(ValueError, match=r"these have \(3,\)"):
        made(T5)(ids, ids[0])
    with pytest.raises(IndexError):
        made(BERT)(ids, segments=ids + 2)
