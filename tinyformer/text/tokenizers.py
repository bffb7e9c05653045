"""From text to token ids and back: what every tokenizer offers, and the two simplest ones.

A tokenizer is a reversible code. `encode` turns bytes into integers below `vocabulary_size`, and `decode`
turns them back into exactly those bytes. Bytes need no vocabulary at all; characters need one symbol for each
that the text uses; byte pairs (`bpe.py`) trade a larger vocabulary for shorter sequences.

Read before: `spans.py`. Read next: `bpe.py`.
"""

import codecs
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..errors import TinyformerError
from ..files import replacing
from .spans import CHUNK_BYTES

FORMAT, VERSION = "tinyformer-tokenizer", 1
REMEDY = "use --tokenizer bytes or --tokenizer bpe, which take anything"


class Tokenizer(ABC):
    """The interface; final classes supply `_encode_stream`, `_decode` and `_definition`.

    Special tokens (`<mask>`, `<pad>`, ...) take the ids after the ordinary ones. Text never encodes to them,
    even text that spells their name; decoding writes their name.

    Attributes:
        kind: "bytes", "chars" or "bpe".
        special_tokens: id of each special token by name, in the order of the ids.
    """

    kind: ClassVar[str]

    def __init__(self, ordinary: int, special_tokens: Sequence[str] = ()):
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
        if isinstance(text, str):
            try:
                text = text.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError as error:
                raise TinyformerError(f"{name} has a lone surrogate at character {error.start}; remove it") from None
        chunks = (text[i : i + CHUNK_BYTES] for i in range(0, len(text), CHUNK_BYTES))
        return np.concatenate([np.empty(0, np.int32), *self.encode_stream(chunks, name)])

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
        if not self.special_tokens or ids.max() < self._ordinary:
            return self._decode(ids)
        names = {i: name.encode() for name, i in self.special_tokens.items()}
        return b"".join(names[i] if i in names else self._decode(np.array([i])) for i in ids.tolist())

    def to_json(self) -> dict:
        """What `tokenizer.json` holds: all that defines the tokenizer, as plain JSON values."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "kind": self.kind,
            "special_tokens": list(self.special_tokens),
            **self._definition(),
        }

    def save(self, path: Path | str) -> None:
        """Write `tokenizer.json`, whole or not at all."""
        text = json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n"
        with replacing(Path(path)) as file:
            file.write(text.encode())

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
