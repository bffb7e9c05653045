"""Windows against loops that try every place."""

import itertools

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinyformer.tasks.windows import owners, windows


@settings(max_examples=max(200, settings.default.max_examples))
@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(1, 12), st.integers(1, 12))
@example([0, 2, 1], 2, 1)
def test_windows_show_everything_and_are_as_large_as_they_can_be(sizes, room, stride):
    found = windows(sizes, room, stride)
    assert found[0][0] == 0
    assert found[-1][1] == len(sizes)
    for start, stop in found:
        held = sum(sizes[start:stop])
        assert held <= room or stop == start + 1
        assert stop == len(sizes) or held + sizes[stop] > room
    for (start, stop), (following, end) in itertools.pairwise(found):
        assert start < following <= stop < end
        moved, before = sum(sizes[start:following]), sum(sizes[following - 1 : stop + 1])
        assert moved <= stride or following == start + 1 or before > room  # one part earlier, nothing new is shown
        assert following == stop or moved + sizes[following] > stride


def test_of_single_tokens_as_in_run_squad():
    """Its loop over doc_spans: a window of 4 that moves by 2 through 9 tokens."""
    assert windows([1] * 9, 4, 2) == [(0, 4), (2, 6), (4, 8), (6, 9)]
    assert windows([1] * 3, 4, 2) == [(0, 3)]
    assert windows([1] * 5, 2, 7) == [(0, 2), (2, 4), (4, 5)]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 12))
def test_a_place_belongs_to_the_window_with_most_around_it(count, room, stride):
    found = windows([1] * count, room, stride)
    chosen = owners(found, count).tolist()
    for place in range(count):  # as in _check_is_max_context
        best, expected = None, None
        for number, (start, stop) in enumerate(found):
            if start <= place < stop:
                score = min(place - start, stop - 1 - place) + 0.01 * (stop - start)
                if best is None or score > best:
                    best, expected = score, number
        assert chosen[place] == expected
    assert chosen == sorted(chosen)


def test_of_equal_windows_the_longest_and_then_the_first():
    assert owners([(0, 4), (1, 7)], 7).tolist() == [0, 0, 1, 1, 1, 1, 1]
    assert owners([(0, 4), (1, 5)], 5).tolist() == [0, 0, 0, 1, 1]
