import codecs
import itertools

from hypothesis import given
from hypothesis import strategies as st

from tinyformer.generation.streaming import TextStream, incomplete_character


def cut(data, places):
    borders = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(borders)]


places = st.lists(st.integers(0, 1000), max_size=12)


@given(st.text(max_size=30), places)
def test_pieces_are_whole_characters_and_nothing_is_lost(text, where):
    stream = TextStream()
    pieces = [stream.push(part) for part in cut(text.encode("utf-8", "ignore"), where)]
    for piece in pieces:
        piece.decode("utf-8")
    assert b"".join(pieces) + stream.close() == text.encode("utf-8", "ignore")
    assert stream.close() == b""


@given(st.binary(max_size=40), places)
def test_any_bytes_pass_through(data, where):
    stream = TextStream()
    pieces = [stream.push(part) for part in cut(data, where)]
    assert b"".join(pieces) + stream.close() == data


# The bytes at which the rules of UTF-8 change.
BORDERS = bytes.fromhex("41 7f 80 8f 90 9f a0 bf c1 c2 df e0 e1 ed ef f0 f1 f4 f5")


def test_what_waits_is_what_python_s_incremental_decoder_holds_back():
    """Given all of the text, where only its last bytes are looked at."""
    for last in itertools.product(BORDERS, repeat=4):
        text = b"a" + bytes(last)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.decode(text)
        assert incomplete_character(text) == len(decoder.getstate()[0])


@given(
    st.text("ab", max_size=30),
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=2),
    places,
)
def test_text_ends_before_the_first_stop_text_wherever_it_is_cut(text, stops, where):
    stream = TextStream([stop.encode() for stop in stops])
    shown = b""
    for part in cut(text.encode(), where):
        shown += stream.push(part)
        # Nothing was shown that could turn out to belong to a stop text.
        assert not any(stop.encode() in shown for stop in stops)
    shown += stream.close()
    complete = [(end, stop) for end in range(len(text) + 1) for stop in stops if text[:end].endswith(stop)]
    if complete:
        first = min(end for end, stop in complete)
        text = text[: first - max(len(stop) for end, stop in complete if end == first)]
    assert shown.decode() == text
    assert stream.stopped == bool(complete)


def test_bytes_wait_only_while_they_may_be_a_stop_text():
    stream = TextStream([b"END"])
    assert [stream.push(part) for part in (b"the E", b"N", b"V", b"E", b"ND more", b"!")] == [
        b"the ",
        b"",
        b"ENV",
        b"",
        b"",
        b"",
    ]
    assert stream.stopped
