"""Documents between blank lines: the same however the text is cut, each encoded by itself, found again by their end."""

import tracemalloc
from itertools import chain, pairwise, repeat

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinyformer.errors import TinyformerError, UsageError
from tinyformer.text import BPETokenizer, ByteTokenizer, CharTokenizer, Parts, encode_corpus, split_corpus
from tinyformer.text.documents import LONGEST_BLANK, documents

MANY = settings(max_examples=max(150, settings.default.max_examples))

texts = st.lists(
    st.sampled_from([b"a", b"bc", b" ", b"\t", b"\r", b"\n", b"\r\n", b"\n\n", b" \n", b"\x0b", b"\x0c", "é".encode()]),
    max_size=30,
).map(b"".join)


def plain(text):
    """Line by line, with the whole text at hand."""
    found, lines = [], []
    for line in [*text.split(b"\n"), b""]:
        if line.strip() or len(line) > LONGEST_BLANK:
            lines.append(line)
        elif lines:
            found.append(b"\n".join(lines).removesuffix(b"\r"))
            lines = []
    return found


def cut(text, places):
    edges = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    return [text[a:b] for a, b in pairwise(edges)]


@MANY
@example(b"\xef\xbb\xbfa\n", [])
@example(b"a\n" + b" " * LONGEST_BLANK + b"\nb", [3, 60_000])
@example(b"a\n" + b" " * (LONGEST_BLANK + 1) + b"\nb\n\n\nc", [3, 60_000])
@example(b"a\r\n" + b" " * (LONGEST_BLANK + 1) + b"\r\n\r\nb", [LONGEST_BLANK + 5])
@given(texts, st.lists(st.integers(0, 40), max_size=8))
def test_any_cut_gives_the_documents_of_the_whole(text, places):
    found = [list(parts) for parts in documents(cut(text, places))]
    assert [b"".join(parts) for parts in found] == plain(text)
    assert all(chain.from_iterable(found))  # no empty piece, which would be work for nothing
    if len(text) < 1000:
        assert [b"".join(parts) for parts in documents(text[i : i + 1] for i in range(len(text)))] == plain(text)


@pytest.mark.parametrize("piece", [b"no line break ", b"lines\n", b" ", b" \n"])
def test_a_document_of_any_size_takes_no_memory(piece):
    chunk = piece * ((1 << 16) // len(piece))
    tracemalloc.start()
    try:
        length = sum(
            len(part) for parts in documents(chain([b"x\n"], repeat(chunk, 400), [b"x\n\n"])) for part in parts
        )
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert length == (2 if piece == b" \n" else 400 * len(chunk) + 3)


BPE = BPETokenizer([(97, 10), (98, 99), (256, 98)], ["<cls>", "<sep>"])  # "a\n" and "a\nb" are tokens


@given(st.lists(texts.filter(bool), min_size=1, max_size=3))
def test_each_document_stands_by_itself_between_its_marks(tmp_path_factory, contents):
    folder = tmp_path_factory.mktemp("documents")
    paths = [folder / str(i) for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    chars = CharTokenizer("\t\n\x0b\x0c\r abcé", ["<cls>", "<sep>"])
    for tokenizer in (ByteTokenizer(["<cls>", "<sep>"]), BPE, chars):
        begin, end = tokenizer.special_id("cls"), tokenizer.special_id("sep")
        expected = [tokenizer.encode(document).tolist() for content in contents for document in plain(content)]
        with encode_corpus(paths, tokenizer, folder / "tokens", document=(begin, end)) as tokens:
            ids = tokens.read(0, len(tokens)).tolist()
            assert tokens.text_bytes == sum(map(len, contents))
            assert ids == [i for document in expected for i in (begin, *document, end)]
            parts = Parts(tokens, end)
            assert len(parts) == len(expected)
            assert [ids[slice(*parts[i])] for i in range(len(parts))] == [[begin, *document] for document in expected]
            for position in range(len(ids)):
                start, stop = parts[parts.containing(position)]
                assert start <= position <= stop


def test_parts_of_a_file_that_is_read_in_stretches(tmp_path, monkeypatch):
    monkeypatch.setattr("tinyformer.text.token_file.COUNT_CHUNK", 7)
    text = b"".join(b"%d." % (i * i) for i in range(200)) + b"rest"
    (tmp_path / "text").write_bytes(text)
    with encode_corpus([tmp_path / "text"], ByteTokenizer(), tmp_path / "tokens") as tokens:
        parts = Parts(tokens, ord("."))
    assert [text[slice(*parts[i])] for i in range(200)] == [b"%d" % (i * i) for i in range(200)]
    assert len(parts) == 200
    assert parts.starts.dtype == parts.stops.dtype == np.int64
    for outside in (-1, len(text) - 1, len(text)):
        with pytest.raises(IndexError, match="none of the 200 parts"):
            parts.containing(outside)
    with pytest.raises(IndexError):
        parts[200]


def test_a_text_without_documents(tmp_path):
    (tmp_path / "text").write_bytes(b" \n\n\t\n")
    tokenizer = ByteTokenizer(["<cls>", "<sep>"])
    with encode_corpus([tmp_path / "text"], tokenizer, tmp_path / "tokens", document=(256, 257)) as tokens:
        assert len(tokens) == len(Parts(tokens, 257)) == 0
    with pytest.raises(UsageError, match="the text has 0 tokens, which is too short"):
        split_corpus([tmp_path / "text"], tokenizer, tmp_path, context=8, row_tokens=8, document=(256, 257))


def test_a_message_counts_the_bytes_of_the_file(tmp_path):
    (tmp_path / "text").write_bytes(b"abc\n\nab\xff")
    with pytest.raises(TinyformerError, match="text is not UTF-8 at byte 7;"):
        encode_corpus([tmp_path / "text"], CharTokenizer("\nabc"), tmp_path / "tokens", document=(0, 1))


@pytest.mark.parametrize("line_break", [b"\n", b"\r\n"])
def test_a_split_prefers_the_space_between_documents(tmp_path, line_break):
    document = line_break.join([b"one line", b"another", b"", b""])
    (tmp_path / "text").write_bytes(document * 500)
    tokenizer = ByteTokenizer(["<cls>", "<sep>"])
    place = {"validation": 0.093, "document": (256, 257)}  # inside a second line
    train, held_out = split_corpus([tmp_path / "text"], tokenizer, tmp_path, context=8, **place)
    with train, held_out:
        whole = 256, *document.rstrip(), 257
        for part in (train, held_out):
            assert tuple(part.read(0, len(part))) == whole * (len(part) // len(whole))
        assert len(held_out) == pytest.approx(47 * len(whole), rel=0.2)


def test_a_split_inside_a_long_document_prefers_a_line(tmp_path):
    (tmp_path / "text").write_bytes(b"a line of it\n" * 1000)
    tokenizer = ByteTokenizer(["<cls>", "<sep>"])
    place = {"validation": 0.0937, "document": (256, 257)}  # inside a line
    for part in split_corpus([tmp_path / "text"], tokenizer, tmp_path, context=8, **place):
        with part:
            text = tokenizer.decode(part.read(1, len(part) - 2))
        assert set(text.split(b"\n")) == {b"a line of it"}


@pytest.mark.parametrize(("row_tokens", "needed", "fits"), [(None, 301, 179), (300, 300, 180), (340, 340, 158)])
def test_a_part_that_is_too_short_for_a_row_says_what_fits(tmp_path, row_tokens, needed, fits):
    (tmp_path / "text").write_bytes(b"x" * 180)
    with pytest.raises(
        UsageError, match=f"has 180 tokens, but a context of 300 needs {needed}; give --context {fits} "
    ):
        split_corpus(
            [tmp_path / "text"],
            ByteTokenizer(),
            tmp_path,
            context=300,
            row_tokens=row_tokens,
            validation=tmp_path / "text",
        )
