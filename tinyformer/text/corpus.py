"""A corpus of any size as token files: encoded as a stream, and split into what is trained on and what is held out.

Read before: `token_file.py`, `encoding.py`. Read next: `batches.py`.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from ..errors import UsageError
from .documents import BREAK
from .encoding import Encode, encoding
from .spans import Progress, Span, read_chunks, read_texts, spans, validation_file, warn_of_bytes, watch_utf8
from .token_file import TokenFile, write_tokens
from .tokenizers import Tokenizer

LINE = re.compile(rb"\n")
LINE_SEARCH_BYTES = 1 << 16
LEAST_CONTEXT = 8  # tokens; to advise a shorter one would help nobody


def encode_corpus(
    paths: Sequence[Path | str],
    tokenizer: Tokenizer,
    target: Path | str,
    *,
    document: tuple[int, int] | None = None,
    processes: int = 1,
    progress: Progress | None = None,
) -> TokenFile:
    """Tokenise text files, one after the other, into one token file, which appears whole or not at all.

    Args:
        paths: text files; each is encoded by itself, so a token never spans two files.
        tokenizer: turns their bytes into ids.
        target: the token file to write.
        document: ids that are put before and after each document. Blank lines, and the ends of files, separate
            documents; they themselves are left out, and each document is encoded by itself.
        processes: that a long text may be shared out over; the ids are the same whatever their number.
        progress: called with bytes done, bytes in all, and what is being done.

    Raises:
        UsageError: a file is missing, a directory or empty.
        TinyformerError: a file cannot be read or encoded, or `target` cannot be written (disk full).
    """
    texts = spans(paths)
    with encoding(tokenizer, document, processes, sum(map(len, texts))) as encode:
        return _encode_texts(read_texts(texts, progress, "encoding the text"), tokenizer, encode, Path(target))


def _encode_texts(
    texts: Iterable[tuple[Span, Iterable[bytes]]],
    tokenizer: Tokenizer,
    encode: Encode,
    target: Path,
    found_bytes: Callable[[Path], object] = lambda path: None,
) -> TokenFile:
    with write_tokens(target, tokenizer.vocabulary_size) as writer:
        for span, chunks in texts:
            writer.text_bytes += len(span)
            if tokenizer.kind != "chars":  # which stops at anything but UTF-8 by itself
                chunks = watch_utf8(chunks, partial(found_bytes, span.path))
            for ids in encode(chunks, span.path):
                writer.write(ids)
    return TokenFile.open(target)


def split_corpus(
    paths: Sequence[Path | str],
    tokenizer: Tokenizer,
    folder: Path | str,
    *,
    validation: float | Path | str = 0.1,
    context: int,
    row_tokens: int | None = None,
    document: tuple[int, int] | None = None,
    processes: int = 1,
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda message: None,
) -> tuple[TokenFile, TokenFile]:
    """Tokenise a corpus into `train.tokens` and `validation.tokens`.

    Args:
        paths: the text files.
        tokenizer: turns their bytes into ids.
        folder: an existing folder for the two token files.
        validation: a text file of its own, or the fraction of the text's bytes to take from its end. The cut
            is moved back to the start of a line if one is near, with `document` rather to the end of a blank one,
            and never falls inside a UTF-8 character.
        context: tokens that the model sees at a time.
        row_tokens: tokens that a row of that context takes, by default one more; both parts must hold at least
            one row.
        document: ids around each document, as for `encode_corpus`.
        processes: that a long text may be shared out over, as for `encode_corpus`.
        progress: called with bytes done, bytes in all, and what is being done.
        warn: told, in a sentence, of each file that is not UTF-8.

    Raises:
        UsageError: a file is missing, a directory or empty; the fraction is not between 0 and 1; a part is
            too short.
        TinyformerError: as for `encode_corpus`.
    """
    texts, own = spans(paths), validation_file(validation)
    parts = (texts, own) if own else _cut(texts, validation, [BREAK, LINE] if document else [LINE])
    needed = context + 1 if row_tokens is None else row_tokens
    sizes = [sum(map(len, part)) for part in parts]
    found_bytes = warn_of_bytes(warn)  # one file may lie in both parts

    with encoding(tokenizer, document, processes, sum(sizes)) as encode:

        def write(part, name, before=0):
            read = read_texts(part, progress, "encoding the text", before=before, total=sum(sizes))
            return _encode_texts(read, tokenizer, encode, Path(folder) / name, found_bytes)

        train, held_out = write(parts[0], "train.tokens"), write(parts[1], "validation.tokens", sizes[0])
    if min(len(train), len(held_out)) < needed:
        raise UsageError(_too_short(len(train), len(held_out), context, needed, None if own else validation))
    return train, held_out


def _too_short(train: int, held_out: int, context: int, needed: int, fraction: float | None) -> str:
    """What to do where the text to train on or the one to validate on has too few tokens for a row.

    One change is enough: a shorter context is one that fits both.
    """
    remedies, fits = [], min(train, held_out) * context // needed
    if fits >= LEAST_CONTEXT:
        remedies.append(f"--context {fits} or less")
    if train >= needed and fraction is not None:
        # A token's share of the text varies, so a little more than in proportion.
        enough = math.ceil(110 * fraction * needed / max(held_out, 1)) / 100
        if enough <= 0.5 and (train + held_out) * (1 - enough) >= needed:
            remedies.append(f"--validation {enough:g}")
    if not remedies and fraction is not None:
        enough = f"training and validation each need {needed} for a context of {context}"
        return f"the text has {train + held_out} tokens, which is too short: {enough}; give more text"
    what, tokens = ("text to train on", train) if train < needed else ("validation split", held_out)
    if train < needed or fraction is None:
        remedies.append("more text" if train < needed else "a longer --validation file")
    return f"the {what} has {tokens} tokens, but a context of {context} needs {needed}; give {', or '.join(remedies)}"


def _cut(texts: list[Span], fraction: float, breaks: Sequence[re.Pattern[bytes]]) -> tuple[list[Span], list[Span]]:
    """The text before and after the point that leaves about `fraction` of its bytes behind it."""
    total = sum(map(len, texts))
    place = min(max(round(total * (1 - fraction)), 0), total)
    first: list[Span] = []
    for i, span in enumerate(texts):
        if place < len(span):
            middle = _after_break(span, place, min(LINE_SEARCH_BYTES, total // 50), breaks)
            parts = [Span(span.path, 0, middle)], [Span(span.path, middle, span.stop)]
            return first + [s for s in parts[0] if len(s)], [s for s in parts[1] if len(s)] + texts[i + 1 :]
        first.append(span)
        place -= len(span)
    return first, []


def _after_break(span: Span, place: int, search: int, breaks: Sequence[re.Pattern[bytes]]) -> int:
    """The end of the first kind of break that ends at most `search` bytes before `place`; else its character."""
    begin = max(0, place - max(search, 3))
    before = b"".join(read_chunks(Span(span.path, begin, place + 1)))
    for kind in breaks:
        ends = [found.end() for found in kind.finditer(before, 0, len(before) - 1)]
        if ends and place - begin - ends[-1] <= search:
            return begin + ends[-1]
    back = 0
    while back < 3 and back < place - begin and before[-1 - back] & 0xC0 == 0x80:
        back += 1
    return place - back
