"""Bytes, characters and byte pairs: lossless, independent of chunks, equal to naive versions of themselves."""

import codecs
from collections import Counter
from itertools import chain, pairwise

import numpy as np
import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinyformer.errors import TinyformerError, UsageError
from tinyformer.text import BPETokenizer, ByteTokenizer, CharTokenizer, make_tokenizer
from tinyformer.text.bpe import apply_merges, pieces_of, split
from tinyformer.text.bpe_training import count_pieces, train_bpe
from tinyformer.text.vocabulary import default_vocabulary_size

MANY = settings(max_examples=max(150, settings.default.max_examples))

GPT2 = regex.compile(r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""")

SAMPLE = """Once upon a time there was a small dragon who couldn't breathe fire. "I'll try," he said, 12 times or 123!
  The old  dragon laughed.\tÜber den Wölken  — 你好，世界。 it's they've we'd 'tis ''s \r\n\r\n   end   """

texts = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=200).map(str.encode),
    st.text(alphabet="ab '\n\tlsé1!\u3000\U0001f600", max_size=400).map(str.encode),
    st.lists(st.sampled_from([b" " * 300, b"a" * 700, b"!" * 257, b"\xff" * 300, b" x", b"\n" * 256]), max_size=5).map(
        b"".join
    ),
)


def cut(text, places):
    edges = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    return [text[a:b] for a, b in pairwise(edges)]


def naive_merges(counts, wanted):
    """Sennrich's algorithm with everything counted anew after each merge."""
    words = {tuple(piece.encode("utf-8", "surrogateescape")): count for piece, count in counts.items()}
    merges = []
    while len(merges) < wanted:
        pairs = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs or max(pairs.values()) < 2:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merged = {}
        for word, count in words.items():
            word = naive_merge(word, best, 256 + len(merges))
            merged[word] = merged.get(word, 0) + count
        words = merged
        merges.append(best)
    return merges


def naive_merge(ids, pair, new):
    out, i = [], 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            out.append(new)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return tuple(out)


@pytest.fixture(scope="module")
def bpe():
    counts = Counter()
    count_pieces(counts, [SAMPLE.encode() * 3])
    return BPETokenizer(train_bpe(counts, 340))


def test_the_known_worked_example():
    merges = train_bpe({"aaabdaaabac": 1}, 256 + 3)
    assert BPETokenizer(merges).encode("aaabdaaabac").tolist() == [258, 100, 258, 97, 99]


@MANY
@given(st.dictionaries(st.text(alphabet="abcé", min_size=1, max_size=12), st.integers(1, 5), max_size=12))
def test_training_equals_the_naive_algorithm(counts):
    assert train_bpe(counts, 256 + 40) == naive_merges(counts, 40)


def test_training_breaks_ties_by_the_smaller_pair_and_not_by_order():
    assert train_bpe({"zy": 2, "ab": 2, "ac": 2}, 258) == train_bpe({"ac": 2, "ab": 2, "zy": 2}, 258)
    assert train_bpe({"zy": 2, "ab": 2, "ac": 2}, 258) == [(97, 98), (97, 99)]


def test_training_stops_when_nothing_occurs_twice():
    tokenizer = BPETokenizer(train_bpe({"abab": 1, "xyz": 1}, 8192))
    assert tokenizer.vocabulary_size == 257  # "ab" only
    assert train_bpe({}, 8192) == []


def test_counting_pieces_is_bounded_and_keeps_the_frequent():
    counts = Counter()
    rare = b"".join(b" rare%c%c" % (97 + i // 26, 97 + i % 26) for i in range(26 * 26))
    count_pieces(counts, [b" often" * 50, rare, b" often" * 50], most=100)
    assert len(counts) <= 200
    assert counts[" often"] == 100


def split_whole(chunks):
    return [piece for pieces, words in split(chunks) for piece in [*pieces, *chain(*map(pieces_of, words))]]


@MANY
@example(b"two  spaces   three \n\n end  ")
@example("no\u00a0break \u3000 wide\u3000 x \x1c \x1d y\x1e z".encode())
@given(texts)
def test_splitting_is_that_of_gpt2_for_pieces_up_to_the_longest(text):
    words = GPT2.findall(text.decode("utf-8", "surrogateescape"))
    pieces = split_whole([text])
    if all(len(word) < 256 for word in words):
        assert pieces == words
    assert "".join(pieces) == "".join(words)
    assert all(len(piece) <= 256 for piece in pieces)


@MANY
@given(texts, st.lists(st.integers(0, 1500), max_size=6))
@example(b"they'll" + b"a" * 300, [5, 6])
@example(b" " * 256 + b"a" + b" " * 600 + b"b", [256, 257, 600])
@example("é你😀".encode() * 300, [1, 4, 7, 700])
def test_chunks_do_not_matter(bpe, text, places):
    chars = CharTokenizer("".join(sorted(set(text.decode("utf-8", "replace")))))
    for tokenizer in (ByteTokenizer(), bpe, chars):
        if tokenizer is chars and not valid(text):
            continue
        parts = list(tokenizer.encode_stream(cut(text, places)))
        assert np.array_equal(np.concatenate([np.empty(0, np.int32), *parts]), tokenizer.encode(text))


def valid(text):
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


@MANY
@given(texts)
def test_lossless_on_any_bytes(bpe, text):
    for tokenizer in (ByteTokenizer(), bpe):
        ids = tokenizer.encode(text)
        assert ids.dtype == np.int32
        assert ids.ndim == 1
        assert tokenizer.decode(ids) == text
        assert b"".join(tokenizer.decode([i]) for i in ids.tolist()) == text


@MANY
@given(st.text(max_size=100))
def test_chars_are_sorted_and_lossless(text):
    tokenizer = CharTokenizer("".join(sorted(set(text))))
    ids = tokenizer.encode(text)
    assert [tokenizer.characters[i] for i in ids] == list(text)
    assert tokenizer.decode(ids).decode() == text


@st.composite
def rules(draw):
    """Merges of any kind, not only those that training would find."""
    ids, merges = [97, 98, 99], []
    for k in range(draw(st.integers(0, 12))):
        pair = draw(st.tuples(st.sampled_from(ids), st.sampled_from(ids)).filter(lambda pair: pair not in merges))
        merges.append(pair)
        ids.append(256 + k)
    return merges


@MANY
@given(st.lists(st.integers(97, 99), max_size=40), rules())
def test_merging_applies_the_rules_in_order(ids, merges):
    expected = tuple(ids)
    for i, pair in enumerate(merges):
        expected = naive_merge(expected, pair, 256 + i)
    assert tuple(apply_merges(ids, {pair: 256 + i for i, pair in enumerate(merges)})) == expected


def test_a_string_is_its_utf8_bytes(bpe):
    for tokenizer in (ByteTokenizer(), bpe):
        assert np.array_equal(tokenizer.encode(SAMPLE), tokenizer.encode(SAMPLE.encode()))
    smuggled = b"caf\xc3\xa9 \xff".decode("ascii", "surrogateescape")  # as in sys.argv under LANG=C
    assert np.array_equal(bpe.encode(smuggled), bpe.encode(b"caf\xc3\xa9 \xff"))
    with pytest.raises(TinyformerError, match="lone surrogate at character 1"):
        bpe.encode("a\ud800")


def test_empty_text(bpe):
    for tokenizer in (ByteTokenizer(), bpe, CharTokenizer("ab")):
        assert tokenizer.encode("").shape == (0,)
        assert tokenizer.decode([]) == b""


def test_special_tokens_follow_the_ordinary_and_text_never_makes_them():
    tokenizer = ByteTokenizer(["<mask>", "<pad>"])
    assert tokenizer.special_tokens == {"<mask>": 256, "<pad>": 257}
    assert tokenizer.vocabulary_size == 258
    assert tokenizer.encode("<mask>").tolist() == list(b"<mask>")
    assert tokenizer.decode([97, 256, 98]) == b"a<mask>b"
    assert ByteTokenizer().special_tokens == {}


@pytest.mark.parametrize("ids", [[256], [-1], [0, 2**40], np.array([1.5])])
def test_ids_outside_the_vocabulary_are_an_error(ids):
    with pytest.raises(TinyformerError, match="token ids"):
        ByteTokenizer().decode(ids)


def test_chars_name_the_byte_that_is_not_utf8(tmp_path):
    path = tmp_path / "bad.txt"
    path.write_bytes(b"caf\xc3\xa9 \xc3" + b"x" * 10)
    with pytest.raises(TinyformerError, match=r"bad\.txt is not UTF-8 at byte 6; use --tokenizer bytes or"):
        make_tokenizer("chars", [path])
    tokenizer = CharTokenizer(" acefx\xe9")
    with pytest.raises(TinyformerError, match=r"not UTF-8 at byte 6"):
        list(tokenizer.encode_stream([b"caf\xc3", b"\xa9 \xc3", b"x"]))
    with pytest.raises(TinyformerError, match=r"not UTF-8 at byte 3"):  # ends inside a character
        tokenizer.encode(b"caf\xc3")


def test_chars_name_a_character_that_they_lack():
    with pytest.raises(TinyformerError, match=r"the character 'z' \(U\+007A\), which is not among the 2"):
        CharTokenizer("ab").encode("abz")
    with pytest.raises(TinyformerError, match=r"U\+1F600"):
        CharTokenizer("ab").encode("a😀")


def test_make_tokenizer_reads_every_file_and_reports_progress(tmp_path):
    (tmp_path / "a").write_bytes(b"abc " * 500)
    (tmp_path / "b").write_bytes(b"abd " * 500)
    paths = [tmp_path / "a", tmp_path / "b"]
    assert make_tokenizer("chars", paths).characters == " abcd"
    calls = []
    tokenizer = make_tokenizer("bpe", paths, vocabulary_size=260, progress=lambda *call: calls.append(call))
    assert tokenizer.vocabulary_size == 260
    assert (4000, 4000, "counting words") in calls
    assert tokenizer.merges == make_tokenizer("bpe", paths, vocabulary_size=260).merges
    assert make_tokenizer("bytes", paths).kind == "bytes"
    tokenizer.save(tmp_path / "tokenizer.json")
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        assert make_tokenizer(path, paths).merges == tokenizer.merges


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        ("bpee", None, "did you mean bpe?"),
        ("char", None, "did you mean chars?"),
        ("nowhere/tokenizer.json", None, "no such file"),
        ("bytes", 300, "belongs to --tokenizer bpe"),
        ("chars", 300, "belongs to --tokenizer bpe"),
        ("bpe", 255, "256"),
        ("bpe", -1, "256"),
        ("bpe", 10**9, "262144"),
    ],
)
def test_impossible_requests_say_what_to_do(tmp_path, kind, size, message):
    (tmp_path / "a").write_bytes(b"abc")
    with pytest.raises(UsageError) as caught:
        make_tokenizer(kind, [tmp_path / "a"], vocabulary_size=size)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_default_vocabulary_grows_with_the_text():
    assert [default_vocabulary_size(n) for n in (0, 307_572, 1_115_394, 5 * 10**6, 10**7, 10**10)] == [
        512,
        512,
        1024,
        4096,
        8192,
        8192,
    ]


def test_a_stream_is_decoded_like_the_whole():
    # The one fact about Python that the splitting relies on, on the sequences where UTF-8 decoders differ.
    for text in (b"\xe2\x82A", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xe2\x28\xa1"):
        for place in range(len(text) + 1):
            decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
            parts = decoder.decode(text[:place]) + decoder.decode(text[place:], final=True)
            assert parts == text.decode("utf-8", "surrogateescape")
