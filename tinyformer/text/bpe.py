"""Byte-pair encoding: frequent sequences of bytes become single tokens.

Text is first split into pieces (a word with the space before it, a number, a run of punctuation) with the
pattern of GPT-2. Inside each piece, neighbouring tokens are merged by the learned rules, earliest rule first,
until none applies (Sennrich 2016, §3.2; on bytes: Radford 2019, §2.2). Ids 0 to 255 are the bytes, 256 + k is
the result of merge k.

Most pieces of a text have occurred before, so the merging, which is slow in Python, is looked up in a
dictionary.

Read before: `tokenizers.py`. Read next: `bpe_training.py`, where the merges come from.
"""

import codecs
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import regex

from .tokenizers import Tokenizer

# GPT-2's pattern with one change: no piece is longer than LONGEST characters. This bounds the work for a
# piece and, since a piece depends on at most REACH characters from its start, lets a stream be split without
# holding more than that back.
LONGEST = 256
REACH = LONGEST + 1
PIECE = regex.compile(
    r"'(?:[sdmt]|ll|ve|re)"
    rf"| ?\p{{L}}{{1,{LONGEST - 1}}}"
    rf"| ?\p{{N}}{{1,{LONGEST - 1}}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]{{1,{LONGEST - 1}}}"
    rf"|\s{{1,{LONGEST}}}(?!\S)"
    rf"|\s{{1,{LONGEST}}}"
)
REMEMBERED, REMEMBERED_CHARACTERS = 1 << 18, 1 << 22  # pieces whose tokens are kept: 50 to 150 MB


class BPETokenizer(Tokenizer):
    """Byte-pair encoding with given merges.

    Args:
        merges: pairs of ids; merge k turns its pair into id 256 + k, and both ids are smaller than that.
    """

    kind = "bpe"
    carries_space = True

    def __init__(self, merges: Sequence[tuple[int, int]], special_tokens: Sequence[str] = ()):
        super().__init__(256 + len(merges), special_tokens)
        self.merges = [(left, right) for left, right in merges]
        self._known = _Pieces(self.merges)
        self._bytes = [bytes([i]) for i in range(256)]
        for left, right in self.merges:
            self._bytes.append(self._bytes[left] + self._bytes[right])

    def _encode_stream(self, chunks: Iterable[bytes], name: str) -> Iterator[np.ndarray]:
        for pieces in split(chunks):
            yield np.frombuffer(b"".join(map(self._known.__getitem__, pieces)), np.intc)

    def _decode(self, ids: np.ndarray) -> bytes:
        return b"".join(map(self._bytes.__getitem__, ids.tolist()))

    def _definition(self) -> dict:
        return {"merges": [f"{left} {right}" for left, right in self.merges]}


def split(chunks: Iterable[bytes]) -> Iterator[list[str]]:
    """The pieces of a text that arrives in chunks, cut anywhere: the same pieces as if it came whole.

    Bytes that are not UTF-8 become lone surrogates (`surrogateescape`), which the pattern treats like
    punctuation and which turn back into the same bytes.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    text = ""
    chunks = iter(chunks)
    chunk = next(chunks, b"")
    while chunk is not None:
        following = next(chunks, None)
        text += decoder.decode(chunk, final=following is None)
        pieces = PIECE.findall(text)
        start, certain = len(text), len(pieces)
        if following is not None:
            # What follows may still change the pieces that start within REACH of the end.
            while certain and (begin := start - len(pieces[certain - 1])) + REACH > len(text):
                start, certain = begin, certain - 1
        del pieces[certain:]
        text = text[start:]
        yield pieces
        chunk = following


class _Pieces(dict):
    """From a piece to the bytes of its int ids; works out what it has not seen."""

    def __init__(self, merges: Sequence[tuple[int, int]]):
        self.merged = {pair: 256 + i for i, pair in enumerate(merges)}
        self.characters = 0

    def __missing__(self, piece: str) -> bytes:
        if len(self) >= REMEMBERED or self.characters >= REMEMBERED_CHARACTERS:
            self.clear()
            self.characters = 0
        self.characters += len(piece)
        ids = apply_merges(list(piece.encode("utf-8", "surrogateescape")), self.merged)
        self[piece] = packed = array("i", ids).tobytes()
        return packed


def apply_merges(ids: list[int], merged: dict[tuple[int, int], int]) -> list[int]:
    """Merge neighbours until no rule applies; of the rules that apply, the earliest learned goes first.

    Args:
        ids: the bytes of one piece.
        merged: id that each pair becomes. Earlier rules have smaller ids.
    """
    never = 1 << 62
    while len(ids) > 1:
        candidates = [merged.get(pair, never) for pair in pairwise(ids)]
        new = min(candidates)
        if new == never:
            break
        # All places at once: what a merge creates can only be merged by a later rule.
        out, i = [], 0
        while i < len(ids):
            if i < len(candidates) and candidates[i] == new:
                out.append(new)
                i += 2
            else:
                out.append(ids[i])
                i += 1
        ids = out
    return ids
