"""Span corruption: T5's published lengths and examples, its random spans, and that nothing of the text is lost."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.objectives.made import END, PAD, SENTINELS, assert_share, generators, make, text
from tinyformer.errors import UsageError
from tinyformer.objectives import SpanCorruption, mark_spans

SEEDS = st.integers(0, 2**32 - 1)
T5 = SpanCorruption(sentinels=range(32127, 32027, -1), end=1, pad=0)


# From t5's preprocessors_test.py, as `random_spans_helper` gives them.
@pytest.mark.parametrize(
    ("inputs", "raw", "targets"), [(128, 141, 29), (256, 284, 58), (512, 568, 114), (1024, 1137, 229)]
)
def test_published_lengths(inputs, raw, targets):
    assert T5.raw_length(inputs) == (raw, targets)
    assert T5.row_tokens(inputs) == raw
    batch = T5.corrupt([np.full(raw, 7)], generators(1))
    assert batch.inputs.shape == (1, inputs)
    assert batch.targets.shape == batch.decoder_inputs.shape == (1, targets)
    assert batch.mask is batch.weights is None


def test_published_sentinels():
    tokens, noise = np.arange(10, 16), np.array([True, True, False, False, True, False])
    vocabulary = range(999, 899, -1)
    assert mark_spans(tokens, noise, vocabulary).tolist() == [999, 12, 13, 998, 15]
    assert mark_spans(tokens, ~noise, vocabulary).tolist() == [10, 11, 999, 14, 998]


def test_the_chapters_example():
    """I love this red car, where T5's code closes the target with the end token and not with a third sentinel."""
    tokens, noise = np.arange(5), np.array([False, True, False, True, True])
    batch = SpanCorruption(sentinels=[91, 90], end=92, pad=93).corrupt([tokens], hidden=[noise])
    assert batch.inputs.tolist() == [[0, 91, 2, 90, 92]]
    assert batch.targets.tolist() == [[91, 1, 90, 3, 4, 92]]
    assert batch.decoder_inputs.tolist() == [[93, 91, 1, 90, 3, 4]]
    with pytest.raises(UsageError, match="2 spans are taken out, and there are 1 sentinels; take out fewer"):
        mark_spans(tokens, noise, [91])


def test_a_text_whose_beginning_is_taken_out():
    """No drawn mask begins so, but a given one may. Where text stays at the end, a sentinel closes the last span."""
    noise = np.array([True, False, False, True, True, False])
    batch = SpanCorruption(sentinels=[91, 90, 89], end=92, pad=93).corrupt([np.arange(6)], hidden=[noise])
    assert batch.inputs.tolist() == [[91, 1, 2, 90, 5, 92]]
    assert batch.targets.tolist() == [[91, 0, 90, 3, 4, 89, 92]]


# Of the text's length: tokens that are taken out, and spans. Halves go to the even number (0.15 * 30 = 4.5).
@pytest.mark.parametrize(
    ("length", "noise", "spans"),
    [(2, 1, 1), (5, 1, 1), (10, 2, 1), (20, 3, 1), (30, 4, 1), (50, 8, 3), (100, 15, 5), (141, 21, 7), (568, 85, 28)],
)
def test_how_much_is_taken_out(length, noise, spans):
    for rng in generators(5):
        mask = T5.noise_mask(length, rng)
        assert mask.shape == (length,)
        assert mask.sum() == noise
        assert np.sum(mask[1:] & ~mask[:-1]) == spans
        assert not mask[0], "the first span stays"
        assert mask[-1], "the last one is taken out"


@given(SEEDS, st.integers(2, 300), st.floats(0.05, 0.95), st.floats(1.0, 10.0))
def test_rows_of_any_density_fit_and_no_longer_text_does(seed, context, density, mean_span):
    objective = SpanCorruption(sentinels=range(9999, 1000, -1), end=1, pad=0, density=density, mean_span=mean_span)
    if context < 3:
        with pytest.raises(UsageError, match="needs a context of at least 3, and has 2"):
            objective.row_tokens(context)
        return
    raw = objective.row_tokens(context)
    for length, fits in [(raw, True), (raw + 1, False)]:
        batch = objective.corrupt([np.full(length, 7)], generators(1, seed))
        assert (max(batch.inputs.shape[1], batch.targets.shape[1]) <= context) is fits
    assert objective.raw_length(context)[1] == objective.corrupt([np.full(raw, 7)], generators(1)).targets.shape[1]


def plain_text(source, target, sentinels, end):
    """The text that a source and a target come from: each span of the target in the place of its sentinel."""
    spans, number = {}, None
    for token in target[: target.index(end)]:
        if token in sentinels:
            number = token
            spans[number] = []
        else:
            spans[number].append(token)
    kept = source[: source.index(end)]
    pieces = [spans.pop(token) if token in sentinels else [token] for token in kept]
    return list(itertools.chain(*pieces)), spans


@given(SEEDS, st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_inputs_and_targets_are_all_of_the_text(seed, lengths):
    rng = np.random.default_rng(seed)
    rows = [text(rng, length) for length in lengths]
    objective = SpanCorruption(sentinels=SENTINELS, end=END, pad=PAD)
    batch = objective.corrupt(rows, generators(len(rows), seed))
    weights = np.ones(batch.targets.shape) if batch.weights is None else batch.weights
    mask = np.ones(batch.inputs.shape, bool) if batch.mask is None else batch.mask
    for number, row in enumerate(rows):
        source, target = batch.inputs[number].tolist(), batch.targets[number].tolist()
        found, left = plain_text(source, target, SENTINELS, END)
        assert found == row.tolist()
        assert left == ({SENTINELS[0]: []} if len(row) == 1 else {})
        for ids, real in [(source, mask), (target, weights)]:
            stop = ids.index(END) + 1
            assert ids[stop:] == [PAD] * (len(ids) - stop)
            assert real[number].tolist() == [i < stop for i in range(len(ids))]
        assert batch.decoder_inputs[number].tolist() == [PAD, *target[:-1]]
    assert batch.inputs.dtype == batch.targets.dtype == batch.decoder_inputs.dtype == rows[0].dtype


def test_too_few_sentinels():
    message = r"a text of (\d+) tokens has 101 spans, and the tokenizer 100 sentinels; use a context of at most (\d+)"
    longest = next(n for n in itertools.count(1024) if round(round(T5.raw_length(n + 1)[0] * 0.15) / 3) > 100)
    assert T5.row_tokens(longest) == T5.raw_length(longest)[0]
    with pytest.raises(UsageError, match=message) as raised:
        T5.row_tokens(longest + 1)
    assert str(raised.value).endswith(f"at most {longest}")
    with pytest.raises(UsageError, match=message.replace("101", "300")):
        T5.corrupt([np.full(100, 7), np.full(6000, 7)], generators(2))
    few = SpanCorruption(sentinels=[9], end=1, pad=0)
    assert few.row_tokens(28) == 30  # round(0.15 * 30) = 4 tokens in one span, and 5 of 31 would be two
    with pytest.raises(UsageError, match="1 sentinels; use a context of at most 28"):
        few.row_tokens(60)
    with pytest.raises(UsageError, match="the tokenizer has no <extra_id_0>"):
        SpanCorruption(sentinels=[], end=1, pad=0)


# Statistics. Each check is wrong about a right implementation with a probability of at most 1e-9: less than 1e-6 in a
# run of the default profile, which draws the same seeds each time, and less than 1e-5 in a thorough one of 1000 seeds.
RATE = 1e-9


@given(SEEDS)
def test_all_masks_are_equally_likely(seed):
    """Four of nine tokens in two spans: 3 ways to cut what is taken out, 4 to cut what stays."""
    objective = SpanCorruption(sentinels=[9, 8], end=1, pad=0, density=4 / 9, mean_span=2.0)
    rng, draws = np.random.default_rng(seed), 1200
    masks = [tuple(objective.noise_mask(9, rng).tolist()) for _ in range(draws)]
    assert len(set(masks)) == 12
    for mask in set(masks):
        assert_share(masks.count(mask), draws, 1 / 12, rate=RATE / 12)


@given(SEEDS)
def test_spans_have_three_tokens_on_average(seed):
    """Hoeffding's bound on the mean of the first span's length, which lies in 1 to 85 - 27 and is 85 / 28 on average.

    The share of 15 % is no matter of chance: see `test_how_much_is_taken_out`.
    """
    draws = 500
    firsts = []
    for rng in generators(draws, seed):
        mask = T5.noise_mask(568, rng)
        start = int(mask.argmax())
        firsts.append(int((~mask[start:]).argmax()))
    error = 57 * math.sqrt(math.log(2 / RATE) / (2 * draws))
    assert abs(np.mean(firsts) - 85 / 28) < error
    lengths = np.bincount(firsts)
    for length in range(1, 6):  # of C(84, 27) ways to cut 85 tokens into 28 spans, those with this first one
        share = math.comb(84 - length, 26) / math.comb(84, 27)
        assert_share(lengths[length], draws, share, rate=RATE)


def test_a_batch_trains_a_model():
    model = make("encoder-decoder")
    objective = SpanCorruption(sentinels=SENTINELS, end=END, pad=PAD)
    batch = objective.corrupt([text(np.random.default_rng(0), n) for n in (1, 5, 20)], generators(3))
    assert np.isfinite(objective.loss(model, batch).item())


def test_the_accuracy_asks_for_text_only():
    """Against the rows themselves: sentinels, ends and padding count neither as targets nor as answers."""
    model = make("encoder-decoder")
    objective = SpanCorruption(sentinels=SENTINELS, end=END, pad=PAD)
    batch = objective.corrupt([text(np.random.default_rng(0), n) for n in (5, 20, 60)], generators(3))
    logits = model(*batch.ids, **batch.keywords).numpy()
    logits[..., [*SENTINELS, END, PAD]] = -np.inf
    answers = logits.argmax(-1)
    asked = [
        (row, place)
        for row, targets in enumerate(batch.targets.tolist())
        for place, target in enumerate(targets)
        if target not in (*SENTINELS, END, PAD)
    ]
    score = objective.score(model, batch)
    assert score["asked"] == len(asked) < score["tokens"] == batch.tokens
    assert score["correct"] == sum(answers[place] == batch.targets[place] for place in asked)


def test_how_common_targets_are_is_what_rows_show():
    """The published lengths: 85 of 114 targets are text, one the end, and each of 28 sentinels comes once."""
    counts = np.zeros(32128, np.int64)
    counts[[5, 6, 7]] = 1, 2, 1
    shares = T5.target_shares(counts, 512)
    assert shares.sum() == pytest.approx(1)
    row = np.random.default_rng(0).choice([5, 6, 6, 7], 568)
    found = np.bincount(T5.corrupt([row], generators(1)).targets[0], minlength=32128) / 114
    assert (found[8:] == shares[8:]).all()
    assert found[1] == shares[1]
    np.testing.assert_allclose(shares[5:8], np.array([1, 2, 1]) / 4 * 85 / 114)
