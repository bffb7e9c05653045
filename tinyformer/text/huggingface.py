"""Tokenizers of published models, run by the `tokenizers` package behind our interface.

What that package calls a tokenizer is a pipeline (normalise, split, look up, mark), all of it described by one JSON
file. It is not reversible for every model: BERT's forgets case and spaces. So here `decode` is what the tokens spell,
each by itself, which is what text that appears token by token needs.

The package is the extra `[hf]`, and is imported when the first such tokenizer is made.

Read before: `tokenizers.py`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import regex

from ..errors import TinyformerError, UsageError
from .special import SPELLINGS
from .tokenizers import Tokenizer, as_bytes, decoded

INSTALL = "pip install 'tinyformer[hf]'"
BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
STRETCH = 1 << 16  # characters that are encoded at a time, cut where lines end


@functools.cache
def byte_letters() -> list[str]:
    """How GPT-2 spells each byte: as its own character where that is visible, else as one from U+0100 on."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(byte) if byte in visible else chr(next(hidden)) for byte in range(256)]


def portable(pattern: str) -> str:
    r"""A pattern whose letters and numbers, `\p{L}` and `\p{N}`, are listed one by one, in ranges.

    The package's engine has an older edition of Unicode than `regex`; so both split alike.
    """

    def spelled(match: regex.Match[str]) -> str:
        if match[0].startswith("["):
            return regex.sub(r"\\p\{[LN]\}", lambda inner: _ranges(inner[0]), match[0])
        return f"[{_ranges(match[0])}]"

    return regex.sub(r"\[[^\]]*\]|\\p\{[LN]\}", spelled, pattern)


@functools.cache
def _ranges(kind: str) -> str:
    """The characters of a kind, as the inside of a class."""
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, sys.maxunicode + 1)]))
    runs = (match[0] for match in regex.finditer(f"{kind}+", everything))
    return "".join(rf"\x{{{ord(run[0]):X}}}-\x{{{ord(run[-1]):X}}}" for run in runs)


class HuggingFaceTokenizer(Tokenizer):
    """A tokenizer of the `tokenizers` package.

    Args:
        definition: the content of its tokenizer.json.
        vocabulary: how many ids the published model has; those that no token has spell nothing.
        settings: the content of its tokenizer_config.json, kept for writing it again.
        special_tokens: names that are special; those that the definition lacks take the ids after the vocabulary.

    Raises:
        UsageError: the package is not installed.
        ValueError: it cannot read the definition, or the vocabulary is too small for that.
    """

    kind = "huggingface"

    def __init__(
        self,
        definition: dict[str, Any],
        vocabulary: int,
        settings: dict[str, Any] | None = None,
        special_tokens: Sequence[str] = (),
    ) -> None:
        self.definition, self.settings = definition, settings or {}
        self._backend = _backend(definition)
        names = self._backend.get_vocab(with_added_tokens=True)
        if names and max(names.values()) >= vocabulary:
            raise ValueError(f"it has ids up to {max(names.values())}, and the model a vocabulary of {vocabulary}")
        added = self._backend.get_added_tokens_decoder()
        special = {token.content: i for i, token in sorted(added.items()) if token.special}
        _keep_apart(self._backend, [name for name, i in special.items() if _spells_itself(self._backend, name, i)])
        super().__init__(vocabulary - len(special))
        self.vocabulary, self.special_tokens = vocabulary, special
        for name in special_tokens:
            self.special_tokens.setdefault(name, self.vocabulary_size)
        steps = _types(definition.get("decoder"))
        self.carries_space = bool(steps & {"ByteLevel", "Metaspace", "WordPiece"})
        spell = _spelling(definition, steps)
        plain = {i: token.content.encode() for i, token in added.items()}
        self._bytes = [b""] * vocabulary
        for name, i in names.items():
            self._bytes[i] = plain[i] if i in plain else spell(name)

    def _encode_stream(self, chunks: Iterable[bytes], name: str) -> Iterator[np.ndarray]:
        for text in _stretches(_decoded(chunks, name)):
            yield np.array(self._encoded(text, name).ids, np.int32)

    def encode_located(self, text: str, name: str = "the text") -> tuple[np.ndarray, np.ndarray]:
        """As of any tokenizer; what the model's own leaves out, as of accents, belongs to the token beside it."""
        ids, places, before = [], [], 0
        for part in _stretches(_decoded([as_bytes(text, name)], name)):
            encoded = self._encoded(part, name)
            ids += encoded.ids
            places += [(before + start, before + stop) for start, stop in encoded.offsets]
            before += len(part)
        return np.array(ids, np.int32), np.array(places, np.int64).reshape(-1, 2)

    def _encoded(self, text: str, name: str) -> Any:
        try:
            with _reported():
                return self._backend.encode(text, add_special_tokens=False)
        except ValueError as error:
            raise TinyformerError(f"the model's tokenizer cannot encode {name}: {error}") from error

    def _decode(self, ids: np.ndarray) -> bytes:
        return b"".join(map(self._bytes.__getitem__, ids.tolist()))

    def _definition(self) -> dict:
        return {"vocabulary": self.vocabulary, "settings": self.settings, "tokenizer": self.definition}


def from_older_files(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The definition of a tokenizer from before tokenizer.json; None where its files are not there either.

    Args:
        folder: with a BERT's vocab.txt, or a GPT-2's vocab.json and merges.txt.
        settings: the content of tokenizer_config.json, which may say `do_lower_case`.

    Raises:
        UsageError: the package is not installed.
        ValueError: the files cannot be read.
    """
    paths = {name: str(folder / name) for name in ("vocab.txt", "vocab.json", "merges.txt")}
    found = {name for name, path in paths.items() if os.path.isfile(path)}
    tokenizers = _package()
    with _reported():
        if "vocab.txt" in found:
            lowercase = settings.get("do_lower_case", True) is not False
            made = tokenizers.BertWordPieceTokenizer(paths["vocab.txt"], lowercase=lowercase)
            made.add_special_tokens([name for name in BERT_TOKENS if made.token_to_id(name) is not None])
        elif {"vocab.json", "merges.txt"} <= found:
            made = tokenizers.ByteLevelBPETokenizer(paths["vocab.json"], paths["merges.txt"])
            made.add_special_tokens([name for name in SPELLINGS["end"] if made.token_to_id(name) is not None])
        else:
            return None
        return json.loads(made.to_str())


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    """The package's errors as a ValueError.

    They are of no narrower kind than Exception itself; where its Rust panics, of one that no module has.
    """
    try:
        yield
    except BaseException as error:
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"the tokenizers package says: {error}") from error


def _package() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise UsageError(f"a published model's tokenizer needs an extra package: {INSTALL}") from error
    return tokenizers


def _backend(definition: dict[str, Any]) -> Any:
    single = {"truncation": None, "padding": None}  # those are for batches
    tokenizers = _package()
    with _reported():
        backend = tokenizers.Tokenizer.from_str(json.dumps(definition | single))
    backend.encode_special_tokens = True  # what spells a special token is text
    return backend


def _spells_itself(backend: Any, name: str, token: int) -> bool:
    """Whether text with the name of a special token encodes to it all the same.

    The vocabulary of a T5 holds `</s>` as a piece like any, so it is the likeliest piece of such a text.
    """
    try:
        with _reported():
            return any(token in backend.encode(text, add_special_tokens=False).ids for text in (name, f"a{name}a"))
    except ValueError:  # it has no token for the letters
        return False


def _keep_apart(backend: Any, names: Iterable[str]) -> None:
    """Split what spells these names behind their first character, as the last step before the look-up."""
    split = "|".join(f"{regex.escape(name[0])}(?={regex.escape(name[1:])})" for name in names)
    if not split:
        return
    tokenizers = _package()
    steps = [backend.pre_tokenizer] if backend.pre_tokenizer is not None else []
    apart = tokenizers.pre_tokenizers.Split(tokenizers.Regex(split), "merged_with_previous")
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([*steps, apart])


def _types(step: Any) -> set[str]:
    """The kinds of all steps in a part of the pipeline, nested ones too."""
    if isinstance(step, list):
        return set().union(*map(_types, step))
    if not isinstance(step, dict):
        return set()
    inner = [_types(value) for value in step.values() if isinstance(value, list | dict)]
    return {str(step.get("type"))}.union(*inner)


def _spelling(definition: dict[str, Any], steps: set[str]) -> Any:
    """From a token to the bytes that it stands for, by the pipeline's last step."""
    if "ByteLevel" in steps:
        values = {letter: byte for byte, letter in enumerate(byte_letters())}
        return lambda token: bytes(values[c] for c in token) if set(token) <= values.keys() else token.encode()
    if "WordPiece" in steps:
        prefix = definition["decoder"].get("prefix", "##")
        return lambda token: (token.removeprefix(prefix) if token.startswith(prefix) else f" {token}").encode()
    if steps & {"Metaspace", "ByteFallback"}:
        return _piece
    return str.encode


def _piece(token: str) -> bytes:
    """SentencePiece's spelling: a low line for a space, and a byte that no token has in hexadecimal."""
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("\u2581", " ").encode()


def _decoded(chunks: Iterable[bytes], name: str) -> Iterator[str]:
    """The text of chunks; what is no UTF-8 is an error, for a published tokenizer reads characters."""
    try:
        yield from decoded(chunks, name)
    except TinyformerError as error:
        reason = str(error).partition(";")[0]
        raise TinyformerError(f"{reason}, and the model's tokenizer reads nothing else; convert it") from error


def _stretches(texts: Iterable[str]) -> Iterator[str]:
    """A long text in parts, the same ones however it arrives.

    A part ends with a line that ends in no other space, before a line that begins with none: there, byte-level and
    WordPiece tokenizers split in any case. Where there is no such place, it ends anywhere.
    """
    held = ""
    for text in texts:
        held += text
        while len(held) > STRETCH:
            cut = held.rfind("\n", 1, STRETCH)
            while cut > 0 and (held[cut - 1].isspace() or held[cut + 1].isspace()):
                cut = held.rfind("\n", 1, cut)
            cut = cut + 1 if cut > 0 else STRETCH
            yield held[:cut]
            held = held[cut:]
    if held:
        yield held
