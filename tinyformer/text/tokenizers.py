"""From text to token ids and back: what every tokenizer offers, and the two simplest ones.

A tokenizer is a reversible code. `encode` turns bytes into integers below `vocabulary_size`, and `decode`
turns them back into exactly those bytes. Bytes need no vocabulary at all; characters need one symbol for each
that the text uses; byte pairs (`bpe.py`) trade a larger vocabulary for shorter sequences.

Read before: `spans.py`, `special.py`. Read next: `bpe.py`.
"""

import codecs
import copy
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count, takewhile
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from ..errors import TinyformerError, UsageError
from ..files import replacing
from .spans import CHUNK_BYTES
from .special import ROLES, SPELLINGS, sentinel, spellings

FORMAT, VERSION = "tinyformer-tokenizer", 1
REMEDY = "use --tokenizer bytes or --tokenizer bpe, which take anything"


class Tokenizer(ABC):
    """The interface; final classes supply `_encode_stream`, `_decode` and `_definition`.

    Special tokens (`<mask>`, `<pad>`, ...) take the ids after the ordinary ones. Text never encodes to them,
    even text that spells their name, unless `encode_marked` is asked; decoding writes their name.

    Attributes:
        kind: "bytes", "chars" or "bpe".
        special_tokens: id of each special token by name, in the order of the ids.
        carries_space: a token for a word holds the space before the word, so a mark in its place does, too.
        separator: what `decode` writes between an ordinary token and a special one, or between two of these.

    Raises:
        ValueError: a name is there twice.
    """

    kind: ClassVar[str]
    carries_space: ClassVar[bool] = False
    separator: ClassVar[bytes] = b""

    def __init__(self, ordinary: int, special_tokens: Sequence[str] = ()):
        if len(set(special_tokens)) != len(special_tokens):
            raise ValueError(f"the names of special tokens must differ: {', '.join(special_tokens)}")
        self._ordinary = ordinary
        self.special_tokens = {name: ordinary + i for i, name in enumerate(special_tokens)}

    @property
    def vocabulary_size(self) -> int:
        """How many ids there are, special tokens included."""
        return self._ordinary + len(self.special_tokens)

    def encode(self, text: bytes | str, name: str = "the text") -> np.ndarray:
        """The ids of a text, int32, one-dimensional.

        Args:
            text: bytes, or a string, which is read as its UTF-8 bytes. Bytes that Python smuggled into a
                string (the "surrogateescape" of command-line arguments) come out as the bytes that they were.
            name: what an error message calls the text.

        Raises:
            TinyformerError: the text cannot be represented (`chars` only), or the string is not text.
        """
        text = as_bytes(text, name)
        chunks = (text[i : i + CHUNK_BYTES] for i in range(0, len(text), CHUNK_BYTES))
        return np.concatenate([np.empty(0, np.int32), *self.encode_stream(chunks, name)])

    def encode_marked(self, text: bytes | str, name: str = "the text") -> np.ndarray:
        """The ids of a text in which the names of special tokens mean these tokens: int32, one-dimensional.

        Any known spelling will do (`<mask>` for a tokenizer that calls it `[MASK]`). What stands between the
        marks is encoded as by `encode`. Where `carries_space`, the space before a mark belongs to it: in
        "a <mask> c" it then hides " b", as in training.

        Args:
            text: bytes or a string, as for `encode`.
            name: what an error message calls the text.

        Raises:
            TinyformerError: as for `encode`.
        """
        marks = {other.encode(): i for special, i in self.special_tokens.items() for other in spellings(special)}
        marks |= {special.encode(): i for special, i in self.special_tokens.items()}
        if not marks:
            return self.encode(text, name)
        # The longest first, for one name may be the beginning of another.
        pattern = b"|".join(map(re.escape, sorted(marks, key=len, reverse=True)))
        pieces = re.split((b" ?(" if self.carries_space else b"(") + pattern + b")", as_bytes(text, name))
        return np.concatenate(
            [
                np.array([marks[piece]], np.int32) if place % 2 else self.encode(piece, name)
                for place, piece in enumerate(pieces)
            ]
        )

    def encode_located(self, text: str, name: str = "the text") -> tuple[np.ndarray, np.ndarray]:
        """The ids of a text, and where in the text each of them stands.

        Args:
            text: a string, as for `encode`.
            name: what an error message calls the text.

        Returns:
            The ids, int32, `n`, and of each the first of its characters and the place behind its last, `n 2`. They
            include the space before a word where the token does. A token that is part of a character has all of it.

        Raises:
            TinyformerError: as for `encode`.
        """
        ids = self.encode(text, name)
        return ids, self._locate(text, ids)

    def _locate(self, text: str, ids: np.ndarray) -> np.ndarray:
        """The characters of each id that a text was encoded to; here, what the ids decode to is the text's bytes."""
        distinct, which = np.unique(ids, return_inverse=True)
        sizes = np.array([len(self._decode(distinct[i : i + 1])) for i in range(len(distinct))], np.int64)
        stops = np.cumsum(sizes[which])
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        hidden = (points >= 0xDC80) & (points <= 0xDCFF)  # bytes that "surrogateescape" made characters of
        lengths = 1 + (points >= 0x80) * 1 + (points >= 0x800) + (points >= 0x10000)
        bounds = np.cumsum([0, *np.where(hidden, 1, lengths)])
        first = np.searchsorted(bounds, stops - sizes[which], side="right") - 1
        return np.stack([first, np.searchsorted(bounds, stops)], axis=1)

    def encode_stream(self, chunks: Iterable[bytes], name: Path | str = "the text") -> Iterator[np.ndarray]:
        """The ids of a text that arrives in chunks, cut anywhere: together, `encode` of the whole.

        Args:
            chunks: consecutive bytes of the text.
            name: what an error message calls the text, usually its file.
        """
        return self._encode_stream(chunks, str(name))

    def decode(self, ids: Iterable[int] | np.ndarray) -> bytes:
        """The exact inverse of `encode`. Bytes, because a single token may end in the middle of a character.

        Raises:
            TinyformerError: an id is outside the vocabulary.
        """
        ids = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids))
        if not ids.size:
            return b""
        if ids.dtype.kind not in "iu":
            raise TinyformerError(f"token ids are integers, but these are {ids.dtype}")
        if ids.min() < 0 or ids.max() >= self.vocabulary_size:
            raise TinyformerError(
                f"token ids {ids.min()} to {ids.max()} do not fit a vocabulary of {self.vocabulary_size}; "
                "is this the tokenizer that they were made with?"
            )
        special = np.isin(ids, list(self.special_tokens.values()))
        if not special.any():
            return self._decode(ids)
        names = {i: name.encode() for name, i in self.special_tokens.items()}
        parts: list[bytes] = []
        for run in np.split(ids, np.flatnonzero(np.diff(special)) + 1):
            parts += map(names.__getitem__, run.tolist()) if run[0] in names else [self._decode(run)]
        return self.separator.join(parts)

    def special_id(self, role: str) -> int:
        """The id of the special token with a role: "pad", "cls", "sep", "mask" or "end".

        Raises:
            UsageError: this tokenizer has none; says in which mode's runs it does.
        """
        for name in SPELLINGS[role]:
            if name in self.special_tokens:
                return self.special_tokens[name]
        modes = " or ".join(f"--mode {mode}" for mode, roles in ROLES.items() if role in roles)
        raise UsageError(f"the tokenizer has no {SPELLINGS[role][0]}; a run that was trained with {modes} has it")

    @property
    def sentinels(self) -> list[int]:
        """The ids of `<extra_id_0>`, `<extra_id_1>` and so on, as many as there are."""
        names = takewhile(self.special_tokens.__contains__, map(sentinel, count()))
        return [self.special_tokens[name] for name in names]

    def with_special_tokens(self, names: Iterable[str]) -> Self:
        """A copy that has these special tokens, too; all ids that exist already stay as they are.

        A name counts as present if there is a token of the same role (`[PAD]` for `<pad>`).
        """
        other = copy.copy(self)
        other.special_tokens = dict(self.special_tokens)
        for name in names:
            if not any(spelling in other.special_tokens for spelling in spellings(name)):
                other.special_tokens[name] = other.vocabulary_size
        return other

    def to_json(self) -> dict:
        """What `tokenizer.json` holds: all that defines the tokenizer, as plain JSON values."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "kind": self.kind,
            "special_tokens": list(self.special_tokens),
            **self._definition(),
        }

    def to_bytes(self) -> bytes:
        """The content of `tokenizer.json`."""
        return (json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n").encode()

    def save(self, path: Path | str) -> None:
        """Write `tokenizer.json`, whole or not at all."""
        with replacing(Path(path)) as file:
            file.write(self.to_bytes())

    @abstractmethod
    def _encode_stream(self, chunks: Iterable[bytes], name: str) -> Iterator[np.ndarray]:
        """The ids of a text that arrives in chunks, cut anywhere; `name` is for messages."""

    @abstractmethod
    def _decode(self, ids: np.ndarray) -> bytes:
        """The text of ordinary ids."""

    @abstractmethod
    def _definition(self) -> dict:
        """What `tokenizer.json` says beyond the kind."""


class ByteTokenizer(Tokenizer):
    """Each byte is its own id: 256 symbols, nothing to learn, takes anything."""

    kind = "bytes"

    def __init__(self, special_tokens: Sequence[str] = ()):
        super().__init__(256, special_tokens)

    def _encode_stream(self, chunks: Iterable[bytes], name: str) -> Iterator[np.ndarray]:
        return (np.frombuffer(chunk, np.uint8).astype(np.int32) for chunk in chunks)

    def _decode(self, ids: np.ndarray) -> bytes:
        return ids.astype(np.uint8).tobytes()

    def _definition(self) -> dict:
        return {}


class CharTokenizer(Tokenizer):
    """Each character that the training text uses is a symbol, in the order of Unicode.

    Args:
        characters: the vocabulary, sorted and without repeats.
    """

    kind = "chars"

    def __init__(self, characters: str, special_tokens: Sequence[str] = ()):
        super().__init__(len(characters), special_tokens)
        self.characters = characters
        points = np.frombuffer(characters.encode("utf-32-le"), np.uint32)
        self._points = points
        # One entry for each code point up to the last one used, and one more that stands for all above.
        self._ids = np.full(int(points.max(initial=0)) + 2, -1, np.int32)
        self._ids[points] = np.arange(len(points), dtype=np.int32)

    def _encode_stream(self, chunks: Iterable[bytes], name: str) -> Iterator[np.ndarray]:
        for text in decoded(chunks, name):
            points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
            ids = self._ids[np.minimum(points, len(self._ids) - 1)]
            if ids.min(initial=0) < 0:
                strange = text[int(np.argmax(ids < 0))]
                raise TinyformerError(
                    f"{name} has the character {strange!r} (U+{ord(strange):04X}), which is not among the "
                    f"{len(self.characters)} of the vocabulary; remove it, or train with text that has it"
                )
            yield ids

    def _decode(self, ids: np.ndarray) -> bytes:
        return self._points[ids].tobytes().decode("utf-32-le").encode("utf-8")

    def _definition(self) -> dict:
        return {"characters": self.characters}


def line_ends(tokenizer: Tokenizer) -> np.ndarray:
    """Which tokens hold a line break in their text: bool, `v`. No special token does."""
    found = np.array([b"\n" in tokenizer.decode([i]) for i in range(tokenizer.vocabulary_size)])
    found[list(tokenizer.special_tokens.values())] = False
    return found


def as_bytes(text: bytes | str, name: str) -> bytes:
    """The bytes of a text; a string's bytes are its UTF-8, and those that "surrogateescape" hid in it.

    Raises:
        TinyformerError: the string is not text; `name` is what the message calls it.
    """
    if not isinstance(text, str):
        return text
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise TinyformerError(f"{name} has a lone surrogate at character {error.start}; remove it") from None


def decoded(chunks: Iterable[bytes], name: str) -> Iterator[str]:
    """UTF-8 text that arrives in chunks, cut anywhere.

    Raises:
        TinyformerError: the bytes are not UTF-8; says at which byte and what to use instead.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    read = 0
    for chunk in chain(chunks, [None]):
        held = len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk or b"", final=chunk is None)
        except UnicodeDecodeError as error:
            offset = read - held + error.start
            raise TinyformerError(f"{name} is not UTF-8 at byte {offset}; {REMEDY}") from None
        read += len(chunk or b"")
        if text:
            yield text
