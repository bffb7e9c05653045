"""Tokenizers of published models behind our interface, and ours in their format."""

import itertools
import json
import sys
import unittest.mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published import gpt2_arrays, gpt2_tokenizer, write_gpt2

from tinyformer import interop
from tinyformer.errors import TinyformerError, UsageError
from tinyformer.interop import tokenizer as formats
from tinyformer.models import resolve
from tinyformer.text import BPETokenizer, ByteTokenizer, CharTokenizer, huggingface, load_tokenizer, vocabulary
from tinyformer.text.huggingface import HuggingFaceTokenizer
from tinyformer.text.special import special_tokens

tokenizers = pytest.importorskip("tokenizers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##want", "##ed", ",", "runn", "##ing", "the"]


def wordpiece():
    """BERT's pipeline: lower case without accents, words, the longest pieces."""
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    backend.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    backend.decoder = tokenizers.decoders.WordPiece()
    backend.add_special_tokens(WORDS[:5])
    return json.loads(backend.to_str())


def sentencepiece():
    """T5's pipeline: a low line for each space, the likeliest pieces, sentinels at the end."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0), ("\u2581I", -3.0), ("\u2581love", -3.0)]
    pieces += [(letter, -9.0) for letter in "Ilovecar"] + [("\u2581car", -3.0)]
    backend = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, 2, False))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    backend.decoder = tokenizers.decoders.Metaspace()
    backend.add_special_tokens(["<pad>", "</s>", "<unk>", "<extra_id_1>", "<extra_id_0>"])
    return json.loads(backend.to_str())


def test_berts_published_example():
    tokenizer = HuggingFaceTokenizer(wordpiece(), 12)
    assert [WORDS[i] for i in tokenizer.encode("UNwantéd,running")] == WORDS[5:11]
    assert tokenizer.decode(np.arange(5, 11)) == b" unwanted , running"
    assert tokenizer.decode([2, 11, 3]) == b"[CLS] the[SEP]"
    assert [tokenizer.special_id(role) for role in ("pad", "cls", "sep", "mask")] == [0, 2, 3, 4]
    # Text that spells a special token is text, unless it is asked to be one, in any spelling.
    assert 4 not in tokenizer.encode("the [MASK]")
    assert tokenizer.encode_marked("the [MASK]").tolist() == tokenizer.encode_marked("the <mask>").tolist() == [11, 4]


def test_files_from_before_tokenizer_json(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    tokenizer = formats.read(tmp_path, 12)
    assert tokenizer.encode("unwanted runnING the").tolist() == [5, 6, 7, 1, 11]
    (tmp_path / "tokenizer_config.json").unlink()
    tokenizer = formats.read(tmp_path, 12)
    assert tokenizer.encode("UNwantéd,running").tolist() == [5, 6, 7, 8, 9, 10]
    assert (tokenizer.special_id("mask"), tokenizer.decode([4])) == (4, b"[MASK]")
    other = tmp_path / "gpt2"
    other.mkdir()
    model = gpt2_tokenizer()["model"]
    (other / "vocab.json").write_text(json.dumps(model["vocab"]))
    (other / "merges.txt").write_text("#version: 0.2\no n\n")
    tokenizer = formats.read(other, 258)
    assert tokenizer.encode("só on").tolist() == [*"só ".encode(), 256]
    assert tokenizer.special_id("end") == 257
    (other / "vocab.json").write_text("{")
    with pytest.raises(TinyformerError, match=r"the tokenizer in .* cannot be used: the tokenizers package"):
        formats.read(other, 258)


def test_t5s_spaces_and_sentinels():
    tokenizer = HuggingFaceTokenizer(sentencepiece(), 32)  # the model has room for more
    ids = tokenizer.encode("I love car")
    assert tokenizer.decode(ids) == b" I love car"
    assert b"".join(tokenizer.decode([i]) for i in ids) == b" I love car"
    assert (tokenizer.special_id("end"), tokenizer.special_id("pad")) == (1, 0)
    zero, one = tokenizer.sentinels
    assert zero == one + 1
    assert tokenizer.encode_marked("I <extra_id_0> car")[1] == zero
    assert (tokenizer.vocabulary_size, tokenizer.decode([31])) == (32, b"")
    with pytest.raises(TinyformerError, match="do not fit a vocabulary of 32"):
        tokenizer.decode([32])


@given(
    parts=st.lists(st.sampled_from(["</s>", "<pad>", "<unk>", "<", "</", "/s>", "s", ">", " ", "I love", "car", "\n"]))
)
def test_no_text_is_a_special_token_even_where_the_vocabulary_has_it_as_a_piece(parts):
    definition = sentencepiece()
    pieces = definition["model"]["vocab"]
    pieces += [[piece, -9.0] for piece in ("<", ">", "/", "s", "p", "d", "u", "n", "k", "\n", "</", "ad>")]
    definition["added_tokens"] = definition["added_tokens"][:3]
    tokenizer, text = HuggingFaceTokenizer(definition, 32), "".join(parts)
    ids = tokenizer.encode(text)
    assert not {0, 1, 2} & set(ids.tolist())
    assert tokenizer.decode(ids).decode().removeprefix(" ") == text.removeprefix(" ")
    theirs = tokenizers.Tokenizer.from_str(json.dumps(definition))
    if not any(name in text for name in ("<pad>", "</s>", "<unk>")):
        assert ids.tolist() == theirs.encode(text, add_special_tokens=False).ids
    marked = tokenizer.encode_marked("I</s>").tolist()
    assert marked == [*tokenizer.encode("I"), 1]


def test_bytes_that_no_piece_has_are_in_hexadecimal():
    definition = json.loads(json.dumps(sentencepiece()).replace('"I"', '"<0x0A>"').replace('"l"', '"<0xZZ"'))
    tokenizer = HuggingFaceTokenizer(definition, 32)
    names = tokenizers.Tokenizer.from_str(json.dumps(definition)).get_vocab()
    assert tokenizer.decode([names["<0x0A>"], names["<0xZZ"], names["\u2581car"]]) == b"\n<0xZZ car"


def test_gpt2s_bytes():
    tokenizer = HuggingFaceTokenizer(gpt2_tokenizer(), 258)
    assert tokenizer.encode("só on").tolist() == [*"só ".encode(), 256]
    assert tokenizer.decode([0xC3]) == b"\xc3"
    assert tokenizer.special_id("end") == 257
    with pytest.raises(
        TinyformerError, match=r"the text is not UTF-8 at byte 1, and the model's tokenizer reads nothing"
    ):
        tokenizer.encode(b"a\xff")


@pytest.mark.parametrize("make", [gpt2_tokenizer, wordpiece, sentencepiece])
def test_a_saved_one_is_the_same(tmp_path, make):
    tokenizer = HuggingFaceTokenizer(make(), 300, {"a": 1}).with_special_tokens(["<new>"])
    tokenizer.save(tmp_path / "tokenizer.json")
    again = load_tokenizer(tmp_path / "tokenizer.json")
    assert again.to_json() == tokenizer.to_json()
    assert (again.special_tokens["<new>"], again.vocabulary_size) == (300, 301)
    assert again.decode([300]) == b"<new>"
    assert again.encode("the car").tolist() == tokenizer.encode("the car").tolist()


@given(
    cuts=st.lists(st.integers(0, 300), max_size=6),
    text=st.lists(st.sampled_from(["on", " the", "\n", " ", "ü"])).map("".join),
)
def test_a_long_text_is_the_same_however_it_arrives(cuts, text):
    tokenizer, text = HuggingFaceTokenizer(gpt2_tokenizer(), 258), text.encode()
    chunks = [text[start:stop] for start, stop in itertools.pairwise([0, *sorted(cuts), len(text)])]
    with unittest.mock.patch.object(huggingface, "STRETCH", 16):
        found = np.concatenate([np.empty(0, np.int32), *tokenizer.encode_stream(chunks)])
        assert np.array_equal(found, tokenizer.encode(text))
    assert tokenizer.decode(found) == text


@given(lines=st.lists(st.sampled_from(["on", " on ", "the\n", "\n\ton  ", "", "ü \n", "  on"]), min_size=3))
def test_lines_are_where_a_byte_level_tokenizer_splits_in_any_case(lines):
    text = "".join(f"a{line}\n{line}a\na" for line in lines)
    whole = tokenizers.Tokenizer.from_str(json.dumps(spaces_merged())).encode(text, add_special_tokens=False).ids
    with unittest.mock.patch.object(huggingface, "STRETCH", 32):
        assert HuggingFaceTokenizer(spaces_merged(), 262).encode(text).tolist() == whole


def spaces_merged():
    """GPT-2's bytes with merges of neighbouring spaces and lines, so that every split shows in the ids."""
    definition = gpt2_tokenizer()
    line, space, tab = (chr(256 + byte) for byte in b"\n \t")
    pairs = [[space, line], [line, line], [line, space], [line, tab]]
    definition["model"]["merges"] += pairs
    definition["model"]["vocab"] |= {left + right: 258 + i for i, (left, right) in enumerate(pairs)}
    return definition


def ours(kind, special=()):
    made = {"bytes": ByteTokenizer, "bpe": lambda names: BPETokenizer([(97, 98), (256, 99), (32, 256)], names)}
    return (made | {"chars": lambda names: CharTokenizer("\n <>abckms", names)})[kind](special)


@pytest.mark.parametrize("mode", ["decoder", "encoder", "encoder-decoder"])
@pytest.mark.parametrize("kind", ["bytes", "bpe", "chars"])
@settings(max_examples=30, deadline=None)
@given(text=st.text(st.sampled_from("\n <>abckms")) | st.just("<mask> ab"))
def test_ours_in_their_format_give_our_ids(mode, kind, text):
    tokenizer = ours(kind, special_tokens(mode))
    shape = resolve(mode=mode, vocabulary=tokenizer.vocabulary_size)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(formats.write(tokenizer, shape)["tokenizer.json"]))
    theirs.encode_special_tokens = True  # what split_special_tokens says
    assert theirs.encode(text, add_special_tokens=False).ids == tokenizer.encode(text).tolist()
    assert theirs.get_vocab_size() == tokenizer.vocabulary_size
    for name, i in tokenizer.special_tokens.items():
        assert theirs.token_to_id(name) == i


def test_two_tokens_that_spell_the_same_cannot_go_out():
    tokenizer = BPETokenizer([(97, 98), (98, 99), (256, 99), (97, 257)])
    with pytest.raises(UsageError, match="two tokens are spelled 'abc'"):
        formats.write(tokenizer, resolve(vocabulary=260))


def test_an_imported_one_goes_out_as_it_came_or_not_at_all():
    tokenizer, shape = HuggingFaceTokenizer(gpt2_tokenizer(), 258, {"a": 1}), resolve(vocabulary=258)
    assert formats.write(tokenizer, shape) == {"tokenizer.json": gpt2_tokenizer(), "tokenizer_config.json": {"a": 1}}
    with pytest.raises(UsageError, match="<mask>, <cls> were added to an imported tokenizer"):
        formats.write(tokenizer.with_special_tokens(["<mask>", "<cls>"]), shape)


def test_what_is_wrong_with_a_tokenizer_is_one_line(tmp_path, monkeypatch):
    folder = write_gpt2(tmp_path / "in")

    def message(kind):
        with pytest.raises(kind) as error:
            interop.import_run(folder, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return str(error.value)

    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    assert "cannot be used: the tokenizers package says" in message(TinyformerError)
    arrays = gpt2_arrays()
    arrays["transformer.wte.weight"] = arrays["transformer.wte.weight"][:200]
    write_gpt2(folder, arrays, vocab_size=200)
    assert "it has ids up to 257, and the model a vocabulary of 200" in message(TinyformerError)
    write_gpt2(folder)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tokenizers", None)
        assert "needs an extra package: pip install 'tinyformer[hf]'" in message(UsageError)
    (folder / "tokenizer.json").unlink()
    assert f"{folder} has no tokenizer.json" in message(UsageError)


def test_added_tokens_spell_themselves_and_nothing_is_cut():
    definition = gpt2_tokenizer()
    added = definition["added_tokens"][0]
    definition["added_tokens"] += [added | {"id": 259, "content": "éfin", "special": False}]
    definition["model"]["vocab"]["一"] = 258  # a letter that stands for no byte
    definition["truncation"] = {"max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    definition["padding"] = {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None}
    definition["padding"] |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "!"}
    tokenizer = HuggingFaceTokenizer(definition, 260)
    assert tokenizer.encode("aéfina").tolist() == [97, 259, 97]
    assert tokenizer.encode("abcd").tolist() == list(b"abcd")
    assert tokenizer.decode([97, 259, 258]) == "aéfin一".encode()


def test_settings_are_written_where_none_came():
    shape = resolve(mode="encoder", vocabulary=12, context=40)
    settings = formats.write(HuggingFaceTokenizer(wordpiece(), 12), shape)["tokenizer_config.json"]
    marks = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    same = {"model_max_length": 40, "split_special_tokens": False, "tokenizer_class": "PreTrainedTokenizerFast"}
    assert settings.items() >= (marks | same).items()
    assert settings["additional_special_tokens"] == ["[UNK]"]
    assert settings["model_input_names"] == ["input_ids", "token_type_ids", "attention_mask"]


def test_a_tokenizer_that_a_run_could_not_be_read_with_is_not_imported(tmp_path, monkeypatch):
    definition = json.loads(json.dumps(gpt2_tokenizer()).replace("<|endoftext|>", "x" * 65))
    folder = write_gpt2(tmp_path / "in")
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    with pytest.raises(TinyformerError, match="cannot be used: a special token is not a name of 1 to 64 characters"):
        interop.import_run(folder, tmp_path / "out")
    write_gpt2(folder)
    monkeypatch.setattr(vocabulary, "MOST_FILE_BYTES", 4000)
    with pytest.raises(TinyformerError, match="cannot be used: it is larger than"):
        interop.import_run(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_definition_that_makes_the_package_panic_is_an_error_like_any():
    definition = sentencepiece() | {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}
    with pytest.raises(ValueError, match="the tokenizers package says: Precompiled"):
        HuggingFaceTokenizer(definition, 32)


def test_text_that_a_tokenizer_has_no_token_for_is_told():
    definition = wordpiece()
    definition["model"]["unk_token"] = "[NONE]"
    with pytest.raises(
        TinyformerError, match="tokenizer cannot encode my text: the tokenizers package says: WordPiece"
    ):
        HuggingFaceTokenizer(definition, 12).encode("zzz", "my text")


def test_padding_is_a_token_that_no_text_has_and_a_new_one_behind_all_others():
    assert formats.with_padding(ByteTokenizer()).special_id("pad") == 256
    published = HuggingFaceTokenizer(gpt2_tokenizer(), 300, {"pad_token": "<|endoftext|>"})
    padded = formats.with_padding(published)
    assert (padded.special_tokens, padded.vocabulary_size) == ({"<|endoftext|>": 257, "<pad>": 300}, 301)
    assert padded.encode("on <pad>").tolist() == published.encode("on <pad>").tolist()
    assert tokenizers.Tokenizer.from_str(json.dumps(padded.definition)).encode("a<pad>").ids == [97, 300]
    shape = resolve(vocabulary=301, layers=1, width=8, heads=2, context=9)
    settings = formats.write(padded, shape, headed=True)["tokenizer_config.json"]
    assert settings == {"pad_token": "<pad>", "padding_side": "right"}
    definition = gpt2_tokenizer()
    definition["model"]["vocab"]["<pad>"] = 258  # a word like any
    assert formats.with_padding(HuggingFaceTokenizer(definition, 259)).special_id("pad") == 258
    there = HuggingFaceTokenizer(wordpiece(), 12)
    assert formats.with_padding(there) is there
    pieces = sentencepiece()
    pieces["added_tokens"] = []
    unigram = HuggingFaceTokenizer(pieces, 18)
    assert formats.with_padding(unigram) is unigram
