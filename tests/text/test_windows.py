"""The order of training windows, and scoring a text from end to end."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyformer.errors import UsageError
from tinyformer.text import ByteTokenizer, Windows, encode_corpus, scoring_rows

MANY = settings(max_examples=max(150, settings.default.max_examples))

lengths_and_contexts = st.integers(1, 40).flatmap(
    lambda context: st.tuples(st.integers(context + 1, 2000), st.just(context))
)


def epoch(windows, number):
    n = windows.per_epoch
    return windows.starts(0, n * (number + 1))[n * number :]


@MANY
@given(lengths_and_contexts, st.integers(-(2**70), 2**70), st.integers(0, 3))
def test_an_epoch_visits_each_window_once(size, seed, number):
    length, context = size
    windows = Windows(length, context, seed)
    starts = np.sort(epoch(windows, number))
    assert starts[0] >= 0
    assert starts[-1] + context + 1 <= length
    assert np.all(np.diff(starts) == context)  # end to end: nothing twice, nothing between
    assert length - windows.per_epoch * context <= 2 * context


def test_steps_follow_one_another():
    windows = Windows(1000, 8, 5)
    steps = np.concatenate([windows.starts(step, 7) for step in range(60)])
    assert np.array_equal(steps, windows.starts(0, 7 * 60))


def test_the_order_depends_on_seed_and_epoch():
    orders = [tuple(epoch(Windows(9000, 8, seed), number)) for seed in range(4) for number in range(4)]
    assert len(set(orders)) == 16


def test_every_phase_and_every_place_is_used():
    windows = Windows(100, 10, 0)  # 9 windows, phases 0 to 9
    epochs = windows.starts(0, 9 * 2000).reshape(2000, 9)
    assert set((epochs % 10)[:, 0]) == set(range(10))
    first = np.bincount(epochs[:, 0] // 10, minlength=9)
    # Each of 9 windows comes first with probability 1/9: 222 times in 2000, standard deviation 14.
    assert first.min() > 222 - 5 * 14
    assert first.max() < 222 + 5 * 14


def test_exactly_one_window():
    assert np.array_equal(Windows(65, 64, 3).starts(10, 4), [0, 0, 0, 0])


def test_a_huge_text_needs_no_memory_and_neighbours_part():
    windows = Windows(10**13, 1024, 1)
    starts = windows.starts(123_456_789, 1000)
    assert len(set(starts.tolist())) == 1000
    assert starts.max() < 10**13 - 1024
    assert abs(np.corrcoef(starts[:-1], starts[1:])[0, 1]) < 0.15


@pytest.mark.parametrize("length", [0, 1, 64])
def test_a_text_shorter_than_a_window_is_an_error(length):
    with pytest.raises(UsageError, match=f"has {length} tokens, but a context of 64 needs 65"):
        Windows(length, 64, 0)


def test_a_context_of_zero_is_an_error():
    with pytest.raises(UsageError, match="at least 1"):
        Windows(10, 0, 0)


@MANY
@given(
    st.binary(min_size=2, max_size=200),
    st.integers(1, 30),
    st.integers(1, 5),
    st.data(),
)
def test_scoring_covers_every_token_once_with_its_own_past(tmp_path_factory, text, context, batch, data):
    stride = data.draw(st.integers(1, context))
    path = tmp_path_factory.mktemp("score")
    (path / "text").write_bytes(text)
    scored = []
    with encode_corpus([path / "text"], ByteTokenizer(), path / "tokens") as tokens:
        for inputs, targets, weights in scoring_rows(tokens, context, batch, stride=stride):
            assert inputs.shape == targets.shape == weights.shape
            assert len(inputs) <= batch
            assert inputs.shape[1] == min(context, len(text) - 1)
            for row in range(len(inputs)):
                assert np.array_equal(inputs[row, 1:], targets[row, :-1])
                for place in np.flatnonzero(weights[row]):
                    before = bytes(inputs[row, : place + 1].astype(np.uint8))
                    end = len(scored) + 1
                    assert text[:end].endswith(before)
                    if end > context:  # all but the first row see at least this much
                        assert len(before) > context - stride
                    scored.append(targets[row, place])
    assert bytes(scored) == text[1:]


def test_scoring_needs_two_tokens_and_a_sensible_stride(tmp_path):
    (tmp_path / "text").write_bytes(b"x")
    with encode_corpus([tmp_path / "text"], ByteTokenizer(), tmp_path / "tokens") as tokens:
        with pytest.raises(UsageError, match="fewer than two tokens"):
            next(scoring_rows(tokens, 8, 1))
        with pytest.raises(UsageError, match="stride"):
            next(scoring_rows(tokens, 8, 1, stride=9))
