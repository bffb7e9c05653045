"""Where tokens stand in a text: of ours by the bytes that tokens decode to, of published ones by their rules."""

import json
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinyformer.errors import TinyformerError
from tinyformer.text import BPETokenizer, ByteTokenizer, CharTokenizer, WordTokenizer
from tinyformer.text.bpe_training import train_bpe
from tinyformer.text.huggingface import STRETCH, HuggingFaceTokenizer

BPE = BPETokenizer(train_bpe({" the": 9, " bath": 5, "é": 4, " naïve": 3, "\u3000": 3}, 300))
TEXTS = st.text(max_size=60) | st.text(alphabet="the bath naïveé\u3000\U0001f600\n'1", max_size=80)


def by_bytes(tokenizer, text, ids):
    """Each byte belongs to a character; a token has all characters that its bytes belong to."""
    owner = [i for i, character in enumerate(text) for _ in character.encode("utf-8", "surrogateescape")]
    found, done = [], 0
    for token in ids.tolist():
        size = len(tokenizer.decode([token]))
        found.append([owner[done], owner[done + size - 1] + 1])
        done += size
    assert done == len(owner)
    return found


@given(TEXTS)
@example("")
@example("na\u0308ive \U0001f600 the bath")
def test_bytes_characters_and_pairs(text):
    for tokenizer in (ByteTokenizer(["<mask>"]), CharTokenizer("".join(sorted(set(text)))), BPE):
        ids, places = tokenizer.encode_located(text)
        np.testing.assert_array_equal(ids, tokenizer.encode(text))
        assert places.shape == (len(ids), 2)
        assert places.tolist() == by_bytes(tokenizer, text, ids)


def test_bytes_that_are_no_text_are_characters_of_their_own():
    text = "a\udcff\udcc3 é"
    for tokenizer in (ByteTokenizer(), BPE):
        ids, places = tokenizer.encode_located(text)
        assert places.tolist() == by_bytes(tokenizer, text, ids)
    with pytest.raises(TinyformerError, match="the text has a lone surrogate at character 1"):
        BPE.encode_located("a\ud800")


@given(st.lists(st.sampled_from(["the", "bath", "\n", " ", "  ", "\t"]), max_size=12))
def test_words(parts):
    text = " ".join(parts)
    for known in (["the", "bath"], ["the", "bath", "\n"]):
        ids, places = WordTokenizer(known).encode_located(text)
        found = [match.span() for match in re.finditer("the|bath|\n" if "\n" in known else "the|bath", text)]
        assert places.tolist() == [list(span) for span in found]
        assert [known[i] for i in ids] == [text[a:b] for a, b in found]


def published(backend, size):
    return HuggingFaceTokenizer(json.loads(backend.to_str()), size)


def wordpiece():
    tokenizers = pytest.importorskip("tokenizers")
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##want", "##ed", ",", "runn", "##ing", "the"]
    return published(tokenizers.BertWordPieceTokenizer({name: i for i, name in enumerate(names)}), len(names))


def test_word_pieces_lose_case_accents_and_spaces_but_not_their_place():
    text = "  UNwant\u00e9d,running \u200b the \U0001f600"
    ids, places = wordpiece().encode_located(text)
    assert ids.tolist() == [5, 6, 7, 8, 9, 10, 11, 1]
    spelled = ["UN", "want", "\u00e9d", ",", "runn", "ing", "the", "\U0001f600"]
    assert [text[start:stop] for start, stop in places] == spelled


def test_letters_for_bytes_and_low_lines_for_spaces():
    tokenizers = pytest.importorskip("tokenizers")
    backend = tokenizers.ByteLevelBPETokenizer()
    backend.train_from_iterator(["the bath the bath é"] * 3, vocab_size=265)
    text = "the bath \U0001f600"
    for tokenizer in (published(backend, 300), BPE):
        ids, places = tokenizer.encode_located(text)
        assert places.tolist()[-4:] == [[9, 10]] * 4
        assert "".join(text[start:stop] for start, stop in places[:-4]).replace(" ", "") == "thebath"
    names = [("<unk>", 0.0), ("\u2581", -5.0), ("\u2581the", -1.0), ("\u2581ba", -2.0), ("th", -2.0)]
    backend = tokenizers.Tokenizer(tokenizers.models.Unigram(names, 0, False))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    ids, places = published(backend, len(names)).encode_located("the bath")
    assert ids.tolist() == [2, 3, 4]
    assert [("the bath"[a:b]).strip() for a, b in places] == ["the", "ba", "th"]


def test_a_long_text_is_located_beyond_its_first_stretch():
    tokenizer = wordpiece()
    text = "the unwanted\n" * (STRETCH // 13 + 5)
    ids, places = tokenizer.encode_located(text)
    np.testing.assert_array_equal(ids, tokenizer.encode(text))
    assert {text[a:b] for a, b in places} == {"the", "un", "want", "ed"}
    assert (np.diff(places[:, 0]) > 0).all()
