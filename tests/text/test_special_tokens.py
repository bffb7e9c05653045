"""Special tokens: found by role, meant by their names only where asked, added without moving an id."""

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinyformer.errors import TinyformerError, UsageError
from tinyformer.text import (
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    load_tokenizer,
    make_tokenizer,
    special_tokens,
)

MANY = settings(max_examples=max(150, settings.default.max_examples))


def test_the_names_of_each_mode():
    assert special_tokens("decoder") == ()
    assert special_tokens("encoder") == ("<pad>", "<cls>", "<sep>", "<mask>")
    names = special_tokens("encoder-decoder")
    assert len(names) == len(set(names)) == 102
    assert names[:3] == ("<pad>", "</s>", "<extra_id_99>")
    # T5's sentinel i is vocabulary - 1 - i.
    tokenizer = ByteTokenizer(names)
    assert tokenizer.sentinels == [tokenizer.vocabulary_size - 1 - i for i in range(100)]
    assert tokenizer.special_tokens["<extra_id_0>"] == tokenizer.vocabulary_size - 1


def test_a_role_is_found_under_each_of_its_spellings():
    ours = ByteTokenizer(special_tokens("encoder"))
    bert = ByteTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    assert [ours.special_id(role) for role in ("pad", "cls", "sep", "mask")] == [256, 257, 258, 259]
    assert [bert.special_id(role) for role in ("pad", "cls", "sep", "mask")] == [256, 258, 259, 260]
    assert ByteTokenizer(["<|endoftext|>"]).special_id("end") == 256
    assert ByteTokenizer(special_tokens("encoder-decoder")).special_id("end") == 257
    assert ours.sentinels == []


@pytest.mark.parametrize(
    ("role", "message"),
    [
        ("mask", "the tokenizer has no <mask>; a run that was trained with --mode encoder has it"),
        ("end", "the tokenizer has no </s>; a run that was trained with --mode encoder-decoder has it"),
        ("pad", "the tokenizer has no <pad>; a run that was trained with --mode encoder or --mode encoder-decoder"),
    ],
)
def test_a_role_that_is_missing_says_which_mode_has_it(role, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        ByteTokenizer().special_id(role)


# Names that are prefixes of each other, that a pattern would misread, and that are not ASCII.
NAMES = ["<a>", "<a>b", "a", "[MASK]", "é", ".*"]


def naive_marked(tokenizer, text):
    """Byte by byte: at each place the longest name wins."""
    names = {name.encode(): i for name, i in tokenizer.special_tokens.items()} | {
        b"<mask>": tokenizer.special_tokens["[MASK]"]
    }
    ids, begin, place = [], 0, 0
    while place < len(text):
        name = max((name for name in names if text.startswith(name, place)), key=len, default=None)
        if name is None:
            place += 1
            continue
        plain = text[begin:place]
        if tokenizer.carries_space and plain.endswith(b" "):
            plain = plain[:-1]
        ids += [*tokenizer.encode(plain).tolist(), names[name]]
        begin = place = place + len(name)
    return ids + tokenizer.encode(text[begin:]).tolist()


@MANY
@example("a <mask> c<a>b <a>é.*")
@given(st.lists(st.sampled_from([*NAMES, "<mask>", " ", "  ", "b", "<", "xyz", "\n", "ê"]), max_size=12).map("".join))
def test_marked_text(text):
    for tokenizer in (
        ByteTokenizer(NAMES),
        CharTokenizer("\n .*<>[]AKMSabckmsxyzéê", NAMES),
        BPETokenizer([(120, 121), (32, 256)], NAMES),
    ):
        ids = tokenizer.encode_marked(text)
        assert ids.dtype == np.int32
        assert ids.tolist() == naive_marked(tokenizer, text.encode())
        if not tokenizer.carries_space:
            assert tokenizer.decode(ids).decode() == text.replace("<mask>", "[MASK]")
        assert max(tokenizer.encode(text), default=0) < 256 + 2  # which never makes a special token


def test_a_mark_takes_the_space_of_the_word_that_it_stands_for():
    tokenizer = BPETokenizer([(32, 98), (32, 99)], ["<mask>"])  # " b" and " c"
    assert tokenizer.encode("a b c").tolist() == [97, 256, 257]
    assert tokenizer.encode_marked("a <mask> c").tolist() == [97, 258, 257]
    assert ByteTokenizer(["<mask>"]).encode_marked(b"a <mask>").tolist() == [97, 32, 256]


def test_marked_text_that_cannot_be_encoded_names_it():
    with pytest.raises(TinyformerError, match="the prompt has the character 'z'"):
        CharTokenizer("ab", ["<mask>"]).encode_marked("ab<mask>z", "the prompt")
    assert CharTokenizer("ab").encode_marked("").shape == (0,)


@MANY
@given(st.lists(st.integers(250, 260), max_size=60), st.sampled_from([ByteTokenizer, BPETokenizer]))
def test_decoding_runs_equals_decoding_one_by_one(ids, kind):
    names = ["<pad>", "<mask>", "é", "</s>"]
    tokenizer = ByteTokenizer(names) if kind is ByteTokenizer else BPETokenizer([(97, 98)], ["<pad>", "<x>", "é"])
    ids = [i for i in ids if i < tokenizer.vocabulary_size]
    texts = {i: name.encode() for name, i in tokenizer.special_tokens.items()} | {i: bytes([i]) for i in range(256)}
    texts.setdefault(256, b"ab")
    assert tokenizer.decode(ids) == b"".join(texts[i] for i in ids)


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(["[PAD]", "<x>"]), BPETokenizer([(97, 98)], ["[PAD]", "<x>"])])
def test_adding_special_tokens_leaves_every_id_as_it_was(tmp_path, tokenizer):
    before = tokenizer.to_json()
    names = special_tokens("encoder-decoder")
    more = tokenizer.with_special_tokens(names)
    assert tokenizer.to_json() == before
    assert list(more.special_tokens) == ["[PAD]", "<x>", *names[1:]]  # the padding was there under another name
    assert list(more.special_tokens.values()) == list(range(more.vocabulary_size - 103, more.vocabulary_size))
    assert more.special_id("pad") == tokenizer.special_id("pad")
    assert more.sentinels == [more.vocabulary_size - 1 - i for i in range(100)]
    assert more.encode("abc").tolist() == tokenizer.encode("abc").tolist()
    assert more.with_special_tokens(names).to_json() == more.to_json()
    tokenizer.save(tmp_path / "tokenizer.json")
    assert make_tokenizer(tmp_path, [], special_tokens=names).to_json() == more.to_json()
    more.save(tmp_path / "tokenizer.json")
    assert load_tokenizer(tmp_path / "tokenizer.json").sentinels == more.sentinels


def test_names_that_are_there_twice_are_refused():
    with pytest.raises(ValueError, match="must differ: <a>, <a>"):
        ByteTokenizer(["<a>", "<a>"])


def test_a_size_counts_the_special_tokens_and_the_default_does_not(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b" ".join(b"%d" % (i * i) for i in range(4000)))
    names = special_tokens("encoder")
    plain = make_tokenizer("bpe", [path])
    assert plain.vocabulary_size == 512
    marked = make_tokenizer("bpe", [path], special_tokens=names)
    assert marked.vocabulary_size == 516
    assert marked.merges == plain.merges  # so that the text falls into the same tokens in every mode
    asked = make_tokenizer("bpe", [path], vocabulary_size=300, special_tokens=names)
    assert asked.vocabulary_size == 300
    assert asked.merges == plain.merges[:40]
    assert make_tokenizer("bpe", [path], vocabulary_size=260, special_tokens=names).merges == []
    with pytest.raises(UsageError, match=r"has 260 \(the bytes and 4 special tokens\) to 262144 ids, not 259"):
        make_tokenizer("bpe", [path], vocabulary_size=259, special_tokens=names)
    for kind in ("bytes", "chars"):
        assert list(make_tokenizer(kind, [path], special_tokens=names).special_tokens) == list(names)
