"""The order of training windows, and scoring a text from end to end."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyformer.errors import UsageError
from tinyformer.text import ByteTokenizer, Shuffle, Windows, encode_corpus, scoring_rows

MANY = settings(max_examples=max(150, settings.default.max_examples))

sizes = st.integers(1, 40).flatmap(
    lambda size: st.tuples(st.integers(size, 2000), st.just(size), st.integers(0, min(size - 1, 3)), st.booleans())
)


def causal(length, context, seed):
    return Windows(length, context + 1, seed, overlap=1)


def epoch(windows, number):
    n = windows.per_epoch
    return windows.items(0, n * (number + 1))[1][n * number :]


@MANY
@given(sizes, st.integers(-(2**70), 2**70), st.integers(0, 3))
def test_an_epoch_visits_each_window_once(numbers, seed, number):
    length, size, overlap, phase = numbers
    windows = Windows(length, size, seed, overlap=overlap, phase=phase)
    starts = np.sort(epoch(windows, number))
    assert starts[0] >= 0
    assert starts[-1] + size <= length
    assert np.all(np.diff(starts) == size - overlap)  # end to end: nothing twice, nothing between
    left_out = length - overlap - windows.per_epoch * (size - overlap)
    if phase:
        assert left_out < 2 * (size - overlap)
    else:
        assert starts[0] == 0
        assert left_out < size - overlap


# Computed by the first release's code, which a run that goes on must agree with for ever.
@pytest.mark.parametrize(
    ("length", "context", "seed", "per_epoch", "third", "later"),
    [
        (1000, 8, 5, 124, [70, 654, 390, 886, 158, 518], [317, 285, 141]),
        (65, 64, 3, 1, [0, 0, 0, 0, 0, 0], [0, 0, 0]),
        (
            10**9 + 7,
            128,
            1,
            7812499,
            [752598411, 950243083, 735521803, 826993419, 192067467, 66644107],
            [736065419, 402323339, 115399819],
        ),
        (100, 10, -2, 9, [84, 24, 14, 44, 74, 64], [41, 1, 61]),
        (66, 64, 9, 1, [1, 0, 0, 0, 0, 1], [1, 1, 0]),
        (129, 64, 1, 1, [53, 37, 23, 48, 53, 12], [39, 57, 40]),
    ],
)
def test_the_order_is_what_it_has_always_been(length, context, seed, per_epoch, third, later):
    windows = causal(length, context, seed)
    assert windows.per_epoch == per_epoch
    assert windows.items(3, 6)[1].tolist() == third
    assert windows.items(12345, 3)[1].tolist() == later


def test_steps_follow_one_another():
    windows = causal(1000, 8, 5)
    steps = np.concatenate([windows.items(step, 7)[1] for step in range(60)])
    assert np.array_equal(steps, windows.items(0, 7 * 60)[1])


def test_the_order_depends_on_seed_and_epoch():
    orders = [tuple(epoch(causal(9000, 8, seed), number)) for seed in range(4) for number in range(4)]
    assert len(set(orders)) == 16


def test_every_phase_and_every_place_is_used():
    windows = causal(100, 10, 0)  # 9 windows, phases 0 to 9
    epochs = windows.items(0, 9 * 2000)[1].reshape(2000, 9)
    assert set((epochs % 10)[:, 0]) == set(range(10))
    first = np.bincount(epochs[:, 0] // 10, minlength=9)
    # Each of 9 windows comes first with probability 1/9: 222 times in 2000, standard deviation 14.
    assert first.min() > 222 - 5 * 14
    assert first.max() < 222 + 5 * 14


@MANY
@given(st.integers(1, 300), st.integers(-(2**70), 2**70), st.integers(1, 50))
def test_a_shuffle_gives_each_item_once_in_each_epoch_and_its_epoch(count, seed, batch_size):
    shuffle = Shuffle(count, seed)
    steps = -(-3 * count // batch_size)
    parts = [shuffle.items(step, batch_size) for step in range(steps)]
    epochs, items = (np.concatenate(part)[: 3 * count].reshape(3, count) for part in zip(*parts, strict=True))
    assert epochs.dtype == items.dtype == np.int64
    assert np.array_equal(epochs, np.repeat(np.arange(3), count).reshape(3, count))
    assert np.array_equal(np.sort(items, axis=1), np.tile(np.arange(count), (3, 1)))
    if count > 20:
        assert not np.array_equal(items[0], items[1])


def test_nothing_cannot_be_shuffled():
    with pytest.raises(ValueError, match="nothing to shuffle"):
        Shuffle(0, 1)


def test_exactly_one_window():
    assert np.array_equal(causal(65, 64, 3).items(10, 4)[1], [0, 0, 0, 0])


def test_a_huge_text_needs_no_memory_and_neighbours_part():
    windows = causal(10**13, 1024, 1)
    starts = windows.items(123_456_789, 1000)[1]
    assert len(set(starts.tolist())) == 1000
    assert starts.max() < 10**13 - 1024
    assert abs(np.corrcoef(starts[:-1], starts[1:])[0, 1]) < 0.15


@pytest.mark.parametrize("length", [0, 1, 64])
def test_a_text_shorter_than_a_window_is_an_error(length):
    with pytest.raises(UsageError, match=f"has {length} tokens, but a row takes 65"):
        causal(length, 64, 0)


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (1, 1), (4, 9), (4, -1)])
def test_windows_that_do_not_move_on_are_refused(size, overlap):
    with pytest.raises(ValueError, match="cannot share"):
        Windows(10, size, 0, overlap=overlap)


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
