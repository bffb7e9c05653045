"""Pairs of a source and a target, one a line with a tab between: what translation and summarisation learn from.

In a token file each pair is the source, the end id, the target, the end id. Nothing spans two lines.

Read before: `parts.py`. Read next: `batches.py`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, repeat
from pathlib import Path

import numpy as np

from ..errors import TinyformerError, UsageError
from .parts import Parts
from .spans import Progress, Span, read_texts, spans, validation_file, warn_of_bytes, watch_utf8
from .token_file import TokenFile, TokenWriter, write_tokens
from .tokenizers import Tokenizer

LONGEST_LINE = 1 << 20  # bytes


class Pairs:
    """The pairs of a token file. `len` is their number, `[i]` the ids of a source and of its target.

    Args:
        tokens: the file, as `split_pairs` makes it.
        end: the id after each source and each target.

    Raises:
        TinyformerError: a source is without a target.
    """

    def __init__(self, tokens: TokenFile, end: int):
        self._tokens = tokens
        self._parts = Parts(tokens, end)
        if len(self._parts) % 2 or self._parts.stops[-1:].sum() != max(len(tokens) - 1, 0):
            raise TinyformerError(f"{tokens.path} does not consist of pairs; start a new run from the pairs")

    def __len__(self) -> int:
        return len(self._parts) // 2

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """The ids of source and target, int32, without the end ids."""
        source, middle = self._parts[2 * i]
        target, stop = self._parts[2 * i + 1]
        ids = self._tokens.read(source, stop - source)
        return ids[: middle - source], ids[target - source :]


def split_pairs(
    paths: Sequence[Path | str],
    tokenizer: Tokenizer,
    folder: Path | str,
    *,
    validation: float | Path | str = 0.1,
    most: int,
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda message: None,
) -> tuple[TokenFile, TokenFile]:
    """Tokenise files of `source TAB target` lines into `train.tokens` and `validation.tokens`.

    Args:
        paths: the files. Blank lines are skipped, and lines may end with CR LF.
        tokenizer: turns sources and targets into ids; has a special token for the end.
        folder: an existing folder for the two token files.
        validation: a file of its own, or the fraction of the pairs to take from the end.
        most: tokens that a source or a target may have, the end included.
        progress: called with bytes done, bytes in all, and what is being done.
        warn: told, in a sentence, of each file that is not UTF-8.

    Raises:
        UsageError: a file is missing, a directory or empty; a line is no pair (names file and line), or longer
            than `most`; the fraction is not between 0 and 1; there are too few pairs.
        TinyformerError: a file cannot be read or encoded, or a token file cannot be written (disk full).
    """
    texts, own = spans(paths), validation_file(validation)
    # The lines are read twice: how many there are says which of them are held out.
    found_bytes = warn_of_bytes(warn) if tokenizer.kind != "chars" else lambda path: None
    every = _count(texts + own, found_bytes, progress)
    held_out = _count(own, found_bytes)
    if not own:
        held_out = min(max(round(every * validation), 1), every - 1)
    if not 0 < held_out < every:
        raise UsageError(f"there are {every} pairs, which leaves none to train on or none to validate on; give more")

    files = [Path(folder) / name for name in ("train.tokens", "validation.tokens")]
    size = tokenizer.vocabulary_size
    with write_tokens(files[0], size) as train, write_tokens(files[1], size) as validate:
        lines = _lines(read_texts(texts + own, progress, "encoding the pairs"))
        _write(lines, tokenizer, most, chain(repeat(train, every - held_out), repeat(validate)))
    return TokenFile.open(files[0]), TokenFile.open(files[1])


def encode_pairs(
    paths: Sequence[Path | str],
    tokenizer: Tokenizer,
    target: Path | str,
    *,
    most: int,
    progress: Progress | None = None,
) -> TokenFile:
    """Tokenise files of `source TAB target` lines into one token file. Arguments and errors as for `split_pairs`."""
    texts = spans(paths)
    with write_tokens(Path(target), tokenizer.vocabulary_size) as writer:
        lines = _lines(read_texts(texts, progress, "encoding the pairs"))
        if not _write(lines, tokenizer, most, repeat(writer)):
            raise UsageError(f"there are no pairs in {texts[0].path}; each line is a source, one tab, and a target")
    return TokenFile.open(Path(target))


def _write(
    lines: Iterable[tuple[str, bytes, bytes]], tokenizer: Tokenizer, most: int, writers: Iterable[TokenWriter]
) -> int:
    """Write each pair to a writer of its own; returns how many there are.

    Raises:
        UsageError: sources or targets are longer than `most`. Tells the longest of all, so that one change is enough.
    """
    end, count = np.array([tokenizer.special_id("end")]), 0
    too_long, longest, where = 0, 0, ""
    for (name, *pair), writer in zip(lines, writers, strict=False):
        count += 1
        for what, text in zip(("source", "target"), pair, strict=True):
            ids = tokenizer.encode(text, name)
            writer.write(ids)
            writer.write(end)
            writer.text_bytes += len(text) + 1  # the tab or the line's end
            too_long += len(ids) + 1 > most
            if len(ids) + 1 > longest:
                longest, where = len(ids) + 1, f"the {what} of {name}"
    if too_long:
        others = f", and {too_long - 1} more are too long" if too_long > 1 else ""
        raise UsageError(
            f"{where} has {longest} tokens with its end, but the context is {most}{others}; "
            f"give --context {longest}, or shorten them"
        )
    return count


def _count(texts: Sequence[Span], found_bytes: Callable[[Path], object], progress: Progress | None = None) -> int:
    """The number of pairs, after checking that each line is one."""
    read = read_texts(texts, progress, "counting the pairs")
    watched = ((span, watch_utf8(chunks, partial(found_bytes, span.path))) for span, chunks in read)
    return sum(1 for _ in _lines(watched))


def _lines(texts: Iterable[tuple[Span, Iterable[bytes]]]) -> Iterator[tuple[str, bytes, bytes]]:
    """Each pair: what a message calls it, its source and its target.

    Raises:
        UsageError: a line is no pair.
    """
    for span, chunks in texts:
        number, rest = 0, b""
        for chunk in chain(chunks, [b"\n"]):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                number += 1
                name = f"{span.path}, line {number}"
                if pair := _pair(name, line):
                    yield name, *pair
            if len(rest) > LONGEST_LINE:  # an error at once, lest a file without line breaks fill the memory
                _pair(f"{span.path}, line {number + 1}", rest)


def _pair(name: str, line: bytes) -> tuple[bytes, bytes] | None:
    """The source and the target of a line; nothing for a blank one."""
    source, tab, target = line.removesuffix(b"\r").partition(b"\t")
    if len(line) > LONGEST_LINE:
        problem = f"is longer than {LONGEST_LINE >> 20} MiB"
    elif not tab and not source.strip():
        return None
    elif not tab:
        problem = "has no tab"
    elif b"\t" in target:
        problem = "has more than one tab"
    elif not source.strip():
        problem = "has an empty source"
    elif not target.strip():
        problem = "has an empty target"
    else:
        return source, target
    raise UsageError(f"{name} {problem}; each line is a source, one tab, and a target")
