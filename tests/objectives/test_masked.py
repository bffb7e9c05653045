"""Masked language modelling: BERT's counts, documents that share a row, and logits only where they are needed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.objectives.made import (
    CLS,
    MASK,
    OBJECTIVES,
    ORDINARY,
    PAD,
    SEP,
    V,
    assert_share,
    documents,
    generators,
    make,
    text,
)
from tinyformer import backward, fused, no_grad

SEEDS = st.integers(0, 2**32 - 1)
MASKED = OBJECTIVES["masked"]


def document(length):
    """A whole row of one document."""
    return np.array([CLS, *([5] * (length - 2)), SEP], np.int32)


# max(1, round(0.15 len)), where a half goes to the even number: Python's, as in create_pretraining_data.py.
@pytest.mark.parametrize(
    ("length", "count"), [(3, 1), (9, 1), (10, 2), (20, 3), (30, 4), (50, 8), (64, 10), (128, 19), (256, 38), (512, 77)]
)
def test_how_many_tokens_berts_script_hides(length, count):
    batch = MASKED.corrupt([document(length)], generators(1))
    assert batch.weights.sum() == batch.tokens == count


def test_hidden_tokens_may_be_given():
    """The chapter's figure: I love this red car, with "love" hidden; and a longer row beside it."""
    rows = [np.array([CLS, 1, 2, 3, 4, 5, SEP], np.int32), document(9)]
    batch = MASKED.corrupt(rows, hidden=[rows[0] == 2, rows[1] == SEP])
    assert batch.inputs[0].tolist() == [CLS, 1, MASK, 3, 4, 5, SEP, PAD, PAD]
    assert batch.targets[0].tolist() == [CLS, 1, 2, 3, 4, 5, SEP, PAD, PAD]
    assert batch.weights.tolist() == [[0, 0, 1, 0, 0, 0, 0, 0, 0], [0] * 8 + [1]]
    assert batch.inputs.dtype == np.int32


def test_no_more_than_there_are():
    row = np.array([CLS, SEP, CLS, SEP, CLS, 4, SEP, CLS, SEP, CLS, SEP, CLS, SEP, CLS, SEP, CLS, SEP, CLS], np.int32)
    batch = MASKED.corrupt([row], generators(1))  # 17 real tokens: 3 of them
    assert np.flatnonzero(batch.weights).tolist() == [5]
    empty = MASKED.corrupt([row[:4], row[6:]], generators(2))
    assert empty.tokens == 0
    model = make("encoder")
    loss = MASKED.loss(model, empty)
    assert loss.item() == 0
    assert all(np.all(gradient == 0) for gradient in backward(loss).values())
    assert MASKED.score(model, empty) == {"nats": 0, "tokens": 0, "asked": 0, "correct": 0}


@given(SEEDS, st.integers(1, 40))
def test_only_text_is_hidden_and_targets_are_the_tokens(seed, length):
    row = documents(np.random.default_rng(seed), length)
    batch = MASKED.corrupt([row], generators(1, seed))
    inputs, targets, hidden = batch.inputs[0], batch.targets[0], batch.weights[0] == 1
    assert np.all(targets[hidden] < ORDINARY)
    np.testing.assert_array_equal(inputs[~hidden], targets[~hidden])
    np.testing.assert_array_equal(targets[1:-1], row[1:-1])


A, B, C, D = range(4)
CUTS = {
    # row, what becomes of it, the documents' numbers, positions
    "one document": ([CLS, A, B, SEP], [CLS, A, B, SEP], [1, 1, 1, 1], [0, 1, 2, 3]),
    "its middle": ([A, B, C, D], [CLS, B, C, SEP], [1, 1, 1, 1], [0, 1, 2, 3]),
    "an end, a beginning": ([A, B, SEP, CLS, C, D], [CLS, B, SEP, CLS, C, SEP], [1, 1, 1, 2, 2, 2], [0, 1, 2, 0, 1, 2]),
    "ends before": ([SEP, CLS, A, SEP], [PAD, CLS, A, SEP], [0, 1, 1, 1], [0, 0, 1, 2]),
    "ends after one": ([A, SEP, CLS, B, SEP], [CLS, SEP, CLS, B, SEP], [1, 1, 2, 2, 2], [0, 1, 0, 1, 2]),
    "begins after": ([CLS, A, SEP, CLS], [CLS, A, SEP, PAD], [1, 1, 1, 0], [0, 1, 2, 0]),
    "begins one before": ([CLS, A, SEP, CLS, B], [CLS, A, SEP, CLS, SEP], [1, 1, 1, 2, 2], [0, 1, 2, 0, 1]),
    "nothing": ([SEP, CLS], [PAD, PAD], [0, 0], [0, 0]),
}


@pytest.mark.parametrize(("row", "tokens", "numbers", "positions"), CUTS.values(), ids=CUTS)
def test_what_becomes_of_documents_that_are_cut(row, tokens, numbers, positions):
    rows = [np.array(row, np.int32), document(8)]  # a longer one, for padding
    batch = MASKED.corrupt(rows, generators(2))
    assert batch.targets[0].tolist() == tokens + [PAD] * (8 - len(row))
    assert batch.mask[0].tolist() == numbers + [0] * (8 - len(row))
    assert batch.positions[0].tolist() == positions + [0] * (8 - len(row))
    assert batch.mask[1].tolist() == [1] * 8
    assert batch.positions[1].tolist() == list(range(8))


@given(SEEDS, st.integers(1, 60))
def test_documents_are_numbered_and_placed_one_by_one(seed, length):
    batch = MASKED.corrupt([documents(np.random.default_rng(seed), length)] * 2, generators(2))
    number, place = 0, 0
    for token, found, position in zip(batch.targets[1], batch.mask[1], batch.positions[1]):
        number, place = (number + 1, 0) if token == CLS else (number, place + 1)
        assert (found, position) == ((0, 0) if token == PAD else (number, place))


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "relative", "none"])
@given(seed=SEEDS)
def test_documents_in_one_row_are_read_as_if_each_stood_alone(positions, seed):
    model = make("encoder", positions=positions, layers=2)
    batch = MASKED.corrupt([documents(np.random.default_rng(seed), 24)], generators(1, seed))
    with no_grad():
        packed = model(*batch.ids, **batch.keywords).numpy()[0]
        for number in range(1, batch.mask.max() + 1):
            own = batch.mask[0] == number
            alone = model(batch.inputs[:, own]).numpy()[0]
            np.testing.assert_allclose(packed[own], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("head", ["linear", "transform"])
@given(seed=SEEDS)
def test_logits_of_the_hidden_tokens_alone_give_the_same_loss_and_gradient(head, seed):
    rng = np.random.default_rng(seed)
    model = make("encoder", head=head)
    batch = MASKED.corrupt([documents(rng, 24), documents(rng, 9), document(24)], generators(3, seed))
    logits = model(*batch.ids, **batch.keywords)
    full = fused.cross_entropy(logits, batch.targets, batch.weights)
    loss = MASKED.loss(model, batch)
    assert loss.item() == pytest.approx(full.item(), rel=1e-12)
    expected, found = backward(full), backward(loss)
    assert found.keys() == expected.keys()
    for parameter, gradient in expected.items():
        np.testing.assert_allclose(found[parameter], gradient, rtol=0, atol=1e-12)


# Statistics. Each check is wrong about a right implementation with a probability of at most 1e-9, so that all of them
# together are with less than 1e-6 in a run of the default profile, which draws the same seeds each time, and with
# less than 1e-5 in a thorough one of 1000 seeds.
RATE = 1e-9


@given(SEEDS)
def test_four_of_five_are_masked_one_of_ten_kept_one_of_ten_random(seed):
    row = document(200)  # of token 5, and so nothing but the random ids tells what became of a token
    batch = MASKED.corrupt([row] * 200, generators(200, seed))
    shown = batch.inputs[batch.weights == 1]
    assert shown.size == 200 * 30
    assert_share(np.sum(shown == MASK), shown.size, 0.8 + 0.1 / V, rate=RATE / V)
    assert_share(np.sum(shown == 5), shown.size, 0.1 + 0.1 / V, rate=RATE / V)
    special = np.sum((shown >= ORDINARY) & (shown != MASK))  # random ids are from the whole vocabulary
    assert_share(special, shown.size, 0.1 * (V - ORDINARY - 1) / V, rate=RATE / V)
    for token in set(range(V)) - {MASK, 5}:
        assert_share(np.sum(shown == token), shown.size, 0.1 / V, rate=RATE / V)


def test_every_id_comes_up_at_random():
    """About 1,300 random ids of 40: that one is missing has a probability of 40 (39/40)^1300, which is 2e-13."""
    batch = MASKED.corrupt([document(300)] * 300, generators(300))
    assert set(np.unique(batch.inputs[batch.weights == 1])) == set(range(V))


@given(SEEDS)
def test_fifteen_percent_at_places_that_are_all_alike(seed):
    rows, length = 1000, 42
    batch = MASKED.corrupt([document(length)] * rows, generators(rows, seed))
    hidden = batch.weights == 1
    assert hidden.sum() == rows * round(0.15 * length)
    assert not hidden[:, [0, -1]].any()
    for place in range(1, length - 1):
        assert_share(hidden[:, place].sum(), rows, round(0.15 * length) / (length - 2), rate=RATE / length)


def test_every_generator_hides_other_tokens():
    row = np.concatenate([[CLS], text(np.random.default_rng(0), 98), [SEP]]).astype(np.int32)
    batch = MASKED.corrupt([row] * 20, generators(20))
    assert len({tuple(np.flatnonzero(weights)) for weights in batch.weights}) == 20
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        MASKED.corrupt([row] * 2, generators(1))
