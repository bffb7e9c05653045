"""Pairs: every line where it belongs, whatever cannot be one told with its line, and exact line ends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyformer.errors import TinyformerError, UsageError
from tinyformer.text import (
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    Pairs,
    encode_corpus,
    encode_pairs,
    special_tokens,
    split_pairs,
)
from tinyformer.text import pairs as pairs_module
from tinyformer.text import spans as spans_module

NAMES = special_tokens("encoder-decoder")
BYTES = ByteTokenizer(NAMES)
BPE = BPETokenizer([(97, 98), (256, 99), (10, 97)], NAMES)

sides = st.text(alphabet="abc é\x0b", min_size=1, max_size=8).filter(str.strip).map(str.encode)


def read(tokens, tokenizer):
    with tokens:
        pairs = Pairs(tokens, tokenizer.special_id("end"))
        return [tuple(map(tokenizer.decode, pairs[i])) for i in range(len(pairs))]


@given(
    st.lists(st.tuples(sides, sides, st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\n \r\n"])), min_size=2, max_size=12),
    st.floats(0.01, 0.99),
    st.integers(1, 40),
    st.booleans(),
)
def test_pairs_come_back_in_order(tmp_path_factory, lines, fraction, chunk, closed):
    folder = tmp_path_factory.mktemp("pairs")
    text = b"".join(source + b"\t" + target + end for source, target, end in lines)
    (folder / "pairs").write_bytes(text if closed else text.rstrip(b" \r\n"))
    if not closed:
        lines[-1] = (*(lines[-1][0], lines[-1][1].rstrip(b" ")), b"")
        if not lines[-1][1]:
            return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans_module.read_chunks, "__defaults__", (chunk,))
        for tokenizer in (BYTES, BPE):
            parts = split_pairs([folder / "pairs"], tokenizer, folder, validation=fraction, most=20)
            assert [part.text_bytes > 0 for part in parts] == [True, True]
            train, held_out = (read(part, tokenizer) for part in parts)
            assert train + held_out == [(source, target) for source, target, _ in lines]
            assert len(held_out) == min(max(round(fraction * len(lines)), 1), len(lines) - 1)


def test_ids_in_the_file_are_those_of_each_side_alone(tmp_path):
    (tmp_path / "pairs").write_bytes(b"ab\tcab\nabc\tab\n")
    for part in split_pairs([tmp_path / "pairs"], BPE, tmp_path, validation=tmp_path / "pairs", most=3):
        end = BPE.special_id("end")
        assert part.read(0, len(part)).tolist() == [256, end, 99, 256, end, 257, end, 256, end]
        assert part.text_bytes == 14
        source, target = Pairs(part, end)[-1]
        assert source.dtype == np.int32
        assert (source.tolist(), target.tolist()) == ([257], [256])
        with pytest.raises(IndexError):
            Pairs(part, end)[2]


def test_several_files_and_a_validation_file(tmp_path):
    for name in "abc":
        (tmp_path / name).write_bytes(b"%b\t1\n%b\t2" % (name.encode(), name.encode()))
    calls = []
    train, held_out = split_pairs(
        [tmp_path / "a", tmp_path / "b"],
        BYTES,
        tmp_path,
        validation=tmp_path / "c",
        most=8,
        progress=lambda *call: calls.append(call),
    )
    assert read(train, BYTES) == [(b"a", b"1"), (b"a", b"2"), (b"b", b"1"), (b"b", b"2")]
    assert read(held_out, BYTES) == [(b"c", b"1"), (b"c", b"2")]
    assert (21, 21, "counting the pairs") in calls
    assert calls[-1] == (21, 21, "encoding the pairs")


def test_one_token_file_of_all_pairs(tmp_path):
    (tmp_path / "a").write_bytes(b"ab\tcab\nabc\tab\n")
    (tmp_path / "b").write_bytes(b"a\tc")
    tokens = encode_pairs([tmp_path / "a", tmp_path / "b"], BPE, tmp_path / "tokens", most=3)
    assert tokens.text_bytes == 18
    assert read(tokens, BPE) == [(b"ab", b"cab"), (b"abc", b"ab"), (b"a", b"c")]
    with pytest.raises(UsageError, match="line 1 has 3 tokens with its end, but the context is 2;"):
        encode_pairs([tmp_path / "a"], BPE, tmp_path / "tokens", most=2)
    assert len(read(encode_pairs([tmp_path / "b"], BPE, tmp_path / "tokens", most=2), BPE)) == 1
    (tmp_path / "b").write_bytes(b"\n\n")
    with pytest.raises(UsageError, match="there are no pairs in "):
        encode_pairs([tmp_path / "b"], BPE, tmp_path / "tokens", most=2)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"no tab here", "line 3 has no tab;"),
        (b"a\tb\tc", "line 3 has more than one tab;"),
        (b"a\tb\t", "line 3 has more than one tab;"),
        (b"\tb", "line 3 has an empty source;"),
        (b" \tb", "line 3 has an empty source;"),
        (b"a\t\r", "line 3 has an empty target;"),
        (b"a\t \r", "line 3 has an empty target;"),
        (b"\t", "line 3 has an empty source;"),
        (b"abcdefgh\tb", "the source of .*, line 3 has 9 tokens with its end, but the context is 8; give --context 9"),
        (b"a\tabcdefghi", "the target of .*, line 3 has 10 tokens with its end, but the context is 8;"),
        (b"x" * 2_000_000 + b"\ty", "line 3 is longer than 1 MiB;"),
        (b"x\t" + b"y" * 1_500_000, "line 3 is longer than 1 MiB;"),
    ],
)
@pytest.mark.parametrize("ending", [b"", b"\n", b"\nlast\tone\n"])
def test_what_is_no_pair_is_told_with_its_line(tmp_path, line, problem, ending):
    (tmp_path / "pairs.tsv").write_bytes(b"a\tb\n\n" + line + ending)
    with pytest.raises(UsageError, match=problem) as caught:
        split_pairs([tmp_path / "pairs.tsv"], BYTES, tmp_path, most=8)
    assert "pairs.tsv, line 3" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.tsv"]


def test_the_longest_of_all_is_told_so_that_one_change_is_enough(tmp_path):
    (tmp_path / "pairs").write_bytes(b"abcdefghi\tb\na\tabcdefghijk\nabcdefghijk\tb\na\tb\n")
    message = "the target of .*pairs, line 2 has 12 tokens .* is 8, and 2 more are too long; give --context 12"
    with pytest.raises(UsageError, match=message):
        split_pairs([tmp_path / "pairs"], BYTES, tmp_path, most=8)
    split_pairs([tmp_path / "pairs"], BYTES, tmp_path, most=12)


@pytest.mark.parametrize("text", [b"a\tb\n", b"\n\n \n"])
def test_too_few_pairs(tmp_path, text):
    (tmp_path / "pairs").write_bytes(text)
    with pytest.raises(UsageError, match=f"there are {text.count(b'a')} pairs, .*; give more"):
        split_pairs([tmp_path / "pairs"], BYTES, tmp_path, most=8)


def test_other_bad_requests(tmp_path):
    (tmp_path / "pairs").write_bytes(b"a\tb\nc\xff\td\n")
    with pytest.raises(UsageError, match="must lie between 0 and 1"):
        split_pairs([tmp_path / "pairs"], BYTES, tmp_path, validation=1.5, most=8)
    with pytest.raises(UsageError, match="no such file"):
        split_pairs([tmp_path / "pairs"], BYTES, tmp_path, validation="nowhere", most=8)
    with pytest.raises(UsageError, match="no </s>; a run that was trained with --mode encoder-decoder"):
        split_pairs([tmp_path / "pairs"], ByteTokenizer(), tmp_path, most=8)
    with pytest.raises(TinyformerError, match="pairs, line 2 is not UTF-8 at byte 1;"):
        split_pairs([tmp_path / "pairs"], CharTokenizer("abcd", NAMES), tmp_path, most=8)
    told = []
    split_pairs([tmp_path / "pairs"], BYTES, tmp_path, validation=tmp_path / "pairs", most=8, warn=told.append)
    assert told == [f"{tmp_path / 'pairs'} is not UTF-8; training on its bytes"]


def test_a_token_file_that_holds_no_pairs(tmp_path):
    (tmp_path / "text").write_bytes(b"a.b.c.")
    with (
        encode_corpus([tmp_path / "text"], BYTES, tmp_path / "tokens") as tokens,
        pytest.raises(TinyformerError, match="tokens does not consist of pairs"),
    ):
        Pairs(tokens, ord("."))
    (tmp_path / "text").write_bytes(b"a.b.c")
    with (
        encode_corpus([tmp_path / "text"], BYTES, tmp_path / "tokens") as tokens,
        pytest.raises(TinyformerError, match="tokens does not consist of pairs"),
    ):
        Pairs(tokens, ord("."))


def test_a_file_without_line_breaks_is_not_read_into_memory(tmp_path, monkeypatch):
    reads = []
    chunks = spans_module.read_chunks

    def watched(span):
        for chunk in chunks(span):
            reads.append(len(chunk))
            yield chunk

    monkeypatch.setattr(spans_module, "read_chunks", watched)
    with (tmp_path / "pairs").open("wb") as file:
        file.truncate(16 << 20)
    with pytest.raises(UsageError, match="line 1 is longer than 1 MiB"):
        split_pairs([tmp_path / "pairs"], BYTES, tmp_path, most=8)
    assert sum(reads) <= 2 * pairs_module.LONGEST_LINE
