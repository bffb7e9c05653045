"""Words as tokens, and which tokens end a line."""

import pytest

from tinyformer.errors import TinyformerError
from tinyformer.text import BPETokenizer, ByteTokenizer, CharTokenizer, WordTokenizer, line_ends

SENTENCE = "I love this red car"


def test_the_sentence_of_the_figures():
    words = WordTokenizer(SENTENCE.split(), ["<mask>", "<X>", "<Y>", "<Z>"])
    assert words.vocabulary_size == 9
    assert words.encode("  I love\nthis  red car ").tolist() == [0, 1, 2, 3, 4]
    assert [ids.tolist() for ids in words.encode_stream([b"I lo", b"ve th", b"is"])] == [[0, 1, 2]]
    assert words.decode(range(5)) == SENTENCE.encode()
    assert words.encode_marked("I <mask> this red car").tolist() == [0, 5, 2, 3, 4]
    assert words.decode([0, 6, 2, 7]) == b"I <X> this <Y>"
    assert words.decode([6, 1, 7, 3, 4, 8]) == b"<X> love <Y> red car <Z>"
    assert words.decode([6, 7]) == b"<X> <Y>"
    assert words.encode("").shape == (0,)


def test_an_unknown_word_is_named():
    with pytest.raises(TinyformerError, match="the line has the word 'blue', which is not among the 5 known"):
        WordTokenizer(SENTENCE.split()).encode("I love this blue car", "the line")


def test_the_tokens_that_end_a_line():
    names = ["<pad>", "a\nb"]
    cases = [
        (ByteTokenizer(names), {10}),
        (CharTokenizer("\t\nab", names), {1}),
        (BPETokenizer([(10, 10), (97, 98), (97, 256)], names), {10, 256, 258}),
        (WordTokenizer(["a", "b"], names), set()),
    ]
    for tokenizer, expected in cases:
        found = line_ends(tokenizer)
        assert found.dtype == bool
        assert found.shape == (tokenizer.vocabulary_size,)
        assert set(found.nonzero()[0].tolist()) == expected
