"""Tokenizers in and out: `tokenizer.json`, as the `tokenizers` package reads it.

Ours are written without that package, for its format is JSON: a pattern that splits, an alphabet that spells bytes as
visible characters, and the merges. Two things need care for the ids to be the same for every text. The pattern's
letters, numbers and spaces are listed one by one, since the package has an older edition of Unicode than the one that
our pattern uses. And text that spells a special token stays text (`split_special_tokens` in tokenizer_config.json;
transformers' tokenizers take the same name as an argument, to have `<mask>` in a text read as the mask). Where words
carry the space before them, a mark does so too, with the format's `lstrip`, as RoBERTa's mask has it. It takes all the
white space there, and ours one space: they differ behind a line break or several spaces. A tokenizer that was imported
goes out as it came.

Read before: `tinyformer/text/huggingface.py`, `tinyformer/text/bpe.py`. Read next: `directory.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import TinyformerError, UsageError
from ..models import ModelConfig
from ..tasks.encoding import BETWEEN
from ..text import BPETokenizer, ByteTokenizer, CharTokenizer, Tokenizer
from ..text.bpe import PIECE
from ..text.huggingface import HuggingFaceTokenizer, byte_letters, from_older_files, portable
from ..text.special import ROLES, SPELLINGS
from ..text.vocabulary import from_json
from .weights import read_json

FILE, SETTINGS = "tokenizer.json", "tokenizer_config.json"
PAD = SPELLINGS["pad"][0]


def read(directory: Path, vocabulary: int) -> HuggingFaceTokenizer:
    """The tokenizer of a directory, for a model with so many ids.

    Raises:
        UsageError: there is none, or the package that reads it is not installed.
        TinyformerError: it is damaged, or does not fit the model.
    """
    path = directory / FILE
    settings = dict(read_json(directory / SETTINGS)) if (directory / SETTINGS).is_file() else {}
    try:
        definition = dict(read_json(path)) if path.is_file() else from_older_files(directory, settings)
        if definition is None:
            raise UsageError(
                f"{directory} has no {FILE}; where transformers is installed, "
                "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR) makes one of what it has"
            )
        tokenizer = HuggingFaceTokenizer(definition, vocabulary, settings)
        from_json(tokenizer.to_bytes())  # so that no run is made whose own file is refused later
        return tokenizer
    except (ValueError, RecursionError) as error:
        raise TinyformerError(f"the tokenizer in {directory} cannot be used: {error}") from error


def write(tokenizer: Tokenizer, config: ModelConfig, *, headed: bool = False) -> dict[str, Any]:
    """The JSON contents of the files that make AutoTokenizer give our ids.

    Args:
        tokenizer: any of ours, or one that was imported, which goes out as it came.
        config: of the model that it is for.
        headed: whether the model has a head for a task. A decoder's is asked at the end token, which the tokenizer then
            puts behind a text, and a line break between two; and it has a token to pad with, from `with_padding`.

    Raises:
        UsageError: two tokens of a "bpe" spell the same, which the format has no room for; or special tokens were added
            to a tokenizer that was imported.
    """
    if isinstance(tokenizer, HuggingFaceTokenizer):
        if added := [name for name, i in tokenizer.special_tokens.items() if i >= tokenizer.vocabulary]:
            raise UsageError(
                f"{', '.join(added)} were added to an imported tokenizer, which goes out only as it came in"
            )
        made = _settings(tokenizer, config)
        definition = tokenizer.definition
        settings = tokenizer.settings or made | {"split_special_tokens": False}  # the default there
        if headed and config.mode == "decoder":
            definition = definition | {"post_processor": _template(tokenizer, config.mode, headed=True)}
            settings = settings | {"pad_token": made.get("pad_token"), "padding_side": "right"}
        return {FILE: definition, SETTINGS: settings}
    return {FILE: _definition(tokenizer, config.mode, headed), SETTINGS: _settings(tokenizer, config)}


def with_padding(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer of a decoder with a head, with a token to pad with.

    The last token of a text, which a class there asks, is the last one that is no padding. So padding is none that a
    text may end with, nor the token for the end, which an imported decoder is asked at: it is a new one behind all
    others, unless there is one already. A tokenizer that tells pieces by their weight (Unigram) gets none.
    """
    if any(name in tokenizer.special_tokens for name in SPELLINGS["pad"]):
        return tokenizer
    if not isinstance(tokenizer, HuggingFaceTokenizer):
        return tokenizer.with_special_tokens([PAD])
    model, size = tokenizer.definition["model"], tokenizer.vocabulary
    if not isinstance(model["vocab"], dict):
        return tokenizer
    number = model["vocab"].get(PAD, size)
    named = model | {"vocab": model["vocab"] | {PAD: number}}  # else it gets the first number that no token has
    added = [*(tokenizer.definition.get("added_tokens") or ()), _special(PAD, number)]
    definition = tokenizer.definition | {"model": named, "added_tokens": added}
    size = max(size, number + 1)
    return HuggingFaceTokenizer(definition, size, tokenizer.settings, list(tokenizer.special_tokens))


def remark(tokenizer: Tokenizer) -> str | None:
    """What a user of the written tokenizer has to know; None where there is nothing."""
    if not isinstance(tokenizer, CharTokenizer):
        return None
    return (
        f"the tokenizer knows the {len(tokenizer.characters)} characters of its text; in transformers any other is an "
        "error, too, and called 'Missing [UNK] token'"
    )


def special_ids(tokenizer: Tokenizer, mode: str) -> dict[str, Any]:
    """The ids that config.json names. What is None is none, and not a family's usual one."""
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    names = {"pad": "pad_token_id", "end": "eos_token_id"}
    ids |= {names[role]: i for role, i in _roles(tokenizer, mode).items() if role in names}
    return ids | ({"decoder_start_token_id": ids["pad_token_id"]} if mode == "encoder-decoder" else {})


def _roles(tokenizer: Tokenizer, mode: str) -> dict[str, int]:
    """The special tokens that a mode uses, by role, as far as the tokenizer has them."""
    found = {}
    for role in (*ROLES[mode], *(("pad", "end") if mode == "decoder" else ())):
        try:
            found[role] = tokenizer.special_id(role)
        except UsageError:  # a model may have been made without
            continue
    return found


def _settings(tokenizer: Tokenizer, config: ModelConfig) -> dict[str, Any]:
    names = {i: name for name, i in tokenizer.special_tokens.items()}
    keys = {"pad": "pad_token", "cls": "cls_token", "sep": "sep_token", "mask": "mask_token", "end": "eos_token"}
    named = {keys[role]: names[i] for role, i in _roles(tokenizer, config.mode).items()}
    inputs = ["input_ids", *(["token_type_ids"] if config.segments else []), "attention_mask"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.context,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
        "model_input_names": inputs,
        **named,
        "additional_special_tokens": [name for name in tokenizer.special_tokens if name not in named.values()],
    }


def _definition(tokenizer: Tokenizer, mode: str, headed: bool) -> dict[str, Any]:
    """The content of tokenizer.json for one of ours."""
    if isinstance(tokenizer, CharTokenizer):
        vocabulary = {character: i for i, character in enumerate(tokenizer.characters)}
        model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}
        before, after = _split(r"[\s\S]"), {"type": "Fuse"}
    elif isinstance(tokenizer, BPETokenizer | ByteTokenizer):
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
        merges = tokenizer.merges if isinstance(tokenizer, BPETokenizer) else []
        model, after, before = _byte_pairs(merges), byte_level, byte_level
        if merges:
            before = {"type": "Sequence", "pretokenizers": [_split(portable(PIECE.pattern)), byte_level]}
    else:
        raise UsageError(f"a tokenizer of kind {tokenizer.kind!r} has no counterpart in transformers")
    space = tokenizer.carries_space  # that before it belongs to it
    added = [_special(name, i, lstrip=space) for name, i in tokenizer.special_tokens.items()]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": before,
        "post_processor": _template(tokenizer, mode, headed=headed),
        "decoder": after,
        "model": model,
    }


def _special(name: str, number: int, *, lstrip: bool = False) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": lstrip, "rstrip": False, "normalized": False, "special": True}
    return {"id": number, "content": name, **flags}


def _byte_pairs(merges: list[tuple[int, int]]) -> dict[str, Any]:
    names = list(byte_letters())
    for left, right in merges:
        names.append(names[left] + names[right])
    vocabulary = {name: i for i, name in enumerate(names)}
    if len(vocabulary) < len(names):
        twice = next(name for i, name in enumerate(names) if vocabulary[name] != i)
        raise UsageError(f"two tokens are spelled {twice!r}, for which the tokenizers package has one id")
    pairs = [[names[left], names[right]] for left, right in merges]
    nothing = dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"))
    flags = dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False)
    return {"type": "BPE", **nothing, **flags, "vocab": vocabulary, "merges": pairs}


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _template(tokenizer: Tokenizer, mode: str, *, headed: bool = False) -> dict[str, Any] | None:
    """What `add_special_tokens` puts around one text and around two: as the mode's models read them.

    Of a decoder, that is one with a head.
    """
    names = {i: name for name, i in tokenizer.special_tokens.items()}
    marks = {role: (names[i], [i]) for role, i in _roles(tokenizer, mode).items()}
    if mode == "encoder" and {"cls", "sep"} <= marks.keys():
        one, two = ("cls", 0, "sep"), ("cls", 0, "sep", 1, "sep")
    elif mode == "encoder-decoder" and "end" in marks:
        one, two = (0, "end"), (0, "end", 1, "end")
    elif mode == "decoder" and headed:
        end, between = (("end",) if "end" in marks else ()), _ids_of(tokenizer, BETWEEN)
        marks["between"] = BETWEEN, between
        one, two = (0, *end), (0, *(("between",) if between else ()), 1, *end)
    else:
        return None

    def pieces(order: tuple[Any, ...]) -> list[dict[str, Any]]:
        found, second = [], False
        for item in order:
            second = second or item == 1
            kind = int(second and mode == "encoder")
            if isinstance(item, int):
                found.append({"Sequence": {"id": "AB"[item], "type_id": kind}})
            else:
                found.append({"SpecialToken": {"id": marks[item][0], "type_id": kind}})
        return found

    used = dict(marks[item] for item in two if isinstance(item, str))
    special = {name: {"id": name, "ids": ids, "tokens": [name] * len(ids)} for name, ids in used.items()}
    return {"type": "TemplateProcessing", "single": pieces(one), "pair": pieces(two), "special_tokens": special}


def _ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text; none where the tokenizer cannot represent it, and so was never asked to."""
    try:
        return tokenizer.encode(text, "a text").tolist()
    except TinyformerError:
        return []
