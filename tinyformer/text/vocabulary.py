"""Where tokenizers come from: made for a text, or loaded from a file that may be damaged or hostile.

The file is JSON: `format`, `version`, `kind`, `special_tokens` (names, ids after the ordinary ones) and, for
"chars", `characters` (one sorted string), for "bpe", `merges` ("left right" ids, one line each; merge k makes
id 256 + k), for "huggingface" the two files that come with a published model, and its `vocabulary`. Nothing in it
is trusted: each value is checked before it is used, and sizes are bounded before memory is spent on them.

Read before: `bpe_training.py`. Read next: `corpus.py`.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path

from ..errors import TinyformerError, UsageError
from ..files import open_regular, reason
from .bpe import LONGEST, BPETokenizer
from .bpe_training import count_pieces, train_bpe
from .huggingface import HuggingFaceTokenizer
from .spans import Progress, Span, read_texts, spans
from .tokenizers import FORMAT, VERSION, ByteTokenizer, CharTokenizer, Tokenizer, decoded

KINDS = ("bytes", "chars", "bpe")
MOST_IDS = 1 << 18  # published vocabularies stay below 2^18
MOST_FILE_BYTES = 16 << 20
MOST_TOKEN_BYTES = 4 * LONGEST  # of one token; a piece is no longer than this
MOST_TABLE_BYTES = 16 << 20  # of all tokens together


def make_tokenizer(
    kind_or_path: str | Path,
    paths: Sequence[Path | str],
    *,
    vocabulary_size: int | None = None,
    special_tokens: Sequence[str] = (),
    progress: Progress = lambda done, total, what: None,
) -> Tokenizer:
    """A tokenizer for the given text files.

    Args:
        kind_or_path: "bytes", "chars", "bpe", or a `tokenizer.json` (or a run directory that has one).
        paths: the text. Only "chars" and "bpe" read it.
        vocabulary_size: for "bpe", how many ids there are in all: at least 256 and the special tokens; a text
            with little in it may fill less. By default `default_vocabulary_size` and the special tokens.
        special_tokens: names of the special tokens, as from `special.special_tokens(mode)`. A `tokenizer.json`
            that lacks some of them gets these after its last id.
        progress: called with bytes done, bytes in all, and what is being done.

    Raises:
        UsageError: an unknown kind, a size where none is possible, a text file that is missing or empty.
        TinyformerError: `chars` and a text that is not UTF-8; a damaged `tokenizer.json`.
    """
    name = str(kind_or_path)
    if name in KINDS:
        if name != "bpe" and vocabulary_size is not None:
            raise UsageError(f"a vocabulary size belongs to --tokenizer bpe; {name} has a fixed vocabulary")
        if name == "bytes":
            return ByteTokenizer(special_tokens)
        texts = spans(paths)
        if name == "chars":
            return _chars(texts, special_tokens, progress)
        return _bpe(texts, vocabulary_size, special_tokens, progress)
    path = Path(name)
    if path.is_dir() and (path / "tokenizer.json").is_file():
        path = path / "tokenizer.json"
    if not path.is_file():
        near = get_close_matches(name, KINDS, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else "and there is no such file"
        raise UsageError(f"unknown tokenizer {name!r}; {hint} (choose bytes, chars, bpe or a tokenizer.json)")
    if vocabulary_size is not None:
        raise UsageError(f"a vocabulary size cannot be combined with {path}, which has its own; leave it out")
    return load_tokenizer(path).with_special_tokens(special_tokens)


def _chars(texts: list[Span], special_tokens: Sequence[str], progress: Progress) -> CharTokenizer:
    seen: set[str] = set()
    for span, chunks in read_texts(texts, progress, "collecting the characters"):
        for text in decoded(chunks, str(span.path)):
            seen.update(text)
    return CharTokenizer("".join(sorted(seen)), special_tokens)


def _bpe(
    texts: list[Span], vocabulary_size: int | None, special_tokens: Sequence[str], progress: Progress
) -> BPETokenizer:
    total = sum(map(len, texts))
    special = len(special_tokens)
    size = default_vocabulary_size(total) + special if vocabulary_size is None else vocabulary_size
    if not 256 + special <= size <= MOST_IDS:
        least = f"{256 + special} (the bytes and {special} special tokens)" if special else "256 (the bytes)"
        raise UsageError(f"a bpe vocabulary has {least} to {MOST_IDS} ids, not {size}; choose one between")
    counts: Counter[str] = Counter()
    for _, chunks in read_texts(texts, progress, "counting words"):
        count_pieces(counts, chunks)
    wanted = size - special
    merges = train_bpe(counts, wanted, progress=lambda n, of: progress(n * total // of, total, "learning merges"))
    return BPETokenizer(merges, special_tokens)


def default_vocabulary_size(text_bytes: int) -> int:
    """One id for each kilobyte of text, rounded down to a power of two and kept within 512 to 8192."""
    return min(8192, max(512, 1 << (text_bytes // 1024).bit_length() >> 1))


def load_tokenizer(path: Path | str) -> Tokenizer:
    """Read a `tokenizer.json`.

    Raises:
        UsageError: there is no such file.
        TinyformerError: the file is damaged, hostile, or from a newer version; names the file.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            content = file.read(MOST_FILE_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"no tokenizer at {path}; check the path") from None
    except (OSError, ValueError) as error:
        raise TinyformerError(f"cannot read {path}: {reason(error)}") from error
    try:
        return from_json(content)
    except ValueError as error:
        way = "restore it or train the tokenizer again"
        raise TinyformerError(f"{path} is not a usable tokenizer: {error}; {way}") from error


def from_json(content: bytes) -> Tokenizer:
    """The tokenizer that the content of a `tokenizer.json` defines.

    Raises:
        ValueError: it is damaged, hostile, too large, or from a newer version.
    """
    if len(content) > MOST_FILE_BYTES:
        raise ValueError(f"it is larger than {MOST_FILE_BYTES >> 20} MiB")
    try:
        return _defined_by(json.loads(content))  # which raises a ValueError, as does its UTF-8 decoder
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _defined_by(data: object) -> Tokenizer:
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f'it lacks "format": "{FORMAT}"')
    if type(data.get("version")) is not int or data["version"] != VERSION:
        raise ValueError(f"its version is not {VERSION}, the only one that this tinyformer reads")
    kind = data.get("kind")
    definition = {"bytes": set(), "chars": {"characters"}, "bpe": {"merges"}}
    definition["huggingface"] = {"vocabulary", "settings", "tokenizer"}
    if not isinstance(kind, str) or kind not in definition:
        raise ValueError(f"its kind is none of {', '.join(definition)}")
    expected = {"format", "version", "kind", "special_tokens"} | definition[kind]
    if set(data) != expected:
        raise ValueError(f"it must have exactly the entries {', '.join(sorted(expected))}")
    special = _special_tokens(data["special_tokens"])
    if kind == "bytes":
        return ByteTokenizer(special)
    if kind == "chars":
        return CharTokenizer(_characters(data["characters"]), special)
    if kind == "bpe":
        return BPETokenizer(_merges(data["merges"]), special)
    size = data["vocabulary"]
    if type(size) is not int or not 0 < size <= MOST_IDS:
        raise ValueError(f"vocabulary is not a whole number up to {MOST_IDS}")
    if not isinstance(data["settings"], dict) or not isinstance(data["tokenizer"], dict):
        raise ValueError("settings and tokenizer are not tables")
    return HuggingFaceTokenizer(data["tokenizer"], size, data["settings"], special)


def _special_tokens(names: object) -> list[str]:
    if not isinstance(names, list) or len(names) > 4096:
        raise ValueError("special_tokens is not a list of at most 4096 names")
    if not all(isinstance(name, str) and 0 < len(name) <= 64 and _is_text(name) for name in names):
        raise ValueError("a special token is not a name of 1 to 64 characters")
    if len(set(names)) != len(names):
        raise ValueError("a special token is there twice")
    return names


def _characters(characters: object) -> str:
    if not isinstance(characters, str) or not characters or not _is_text(characters):
        raise ValueError("characters is not a text")
    if len(characters) > MOST_IDS or any(a >= b for a, b in pairwise(characters)):
        raise ValueError("characters is not sorted without repeats")
    return characters


def _is_text(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _merges(rows: object) -> list[tuple[int, int]]:
    if not isinstance(rows, list) or len(rows) > MOST_IDS - 256:
        raise ValueError(f"merges is not a list of at most {MOST_IDS - 256}")
    merges: list[tuple[int, int]] = []
    lengths = [1] * 256
    for row in rows:
        if not isinstance(row, str) or not re.fullmatch(r"[0-9]{1,6} [0-9]{1,6}", row):
            raise ValueError(f"merge {len(merges)} is not of the form 'left right'")
        left, right = map(int, row.split())
        if max(left, right) >= len(lengths):
            raise ValueError(f"merge {len(merges)} refers to an id that does not exist yet")
        lengths.append(lengths[left] + lengths[right])
        if lengths[-1] > MOST_TOKEN_BYTES:
            raise ValueError(f"merge {len(merges)} makes a token of more than {MOST_TOKEN_BYTES} bytes")
        merges.append((left, right))
    if len(set(merges)) != len(merges):
        raise ValueError("a merge is there twice")
    if sum(lengths) > MOST_TABLE_BYTES:
        raise ValueError(f"its tokens take more than {MOST_TABLE_BYTES >> 20} MiB")
    return merges
