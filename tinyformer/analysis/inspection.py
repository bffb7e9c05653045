"""What a model sees of a text: its tokens, what an objective makes of them, and who may look at whom.

The batch is the one that the objective's own `corrupt` makes in training, and the attention pattern comes from the
rules that the models themselves apply (`models.stack.visible`, `functional.causal_mask`). In an encoder every token
sees all others of its document. In a decoder each sees itself and what stands before. In an encoder-decoder there is
one of each, and every target token sees the whole source.

Read before: `tinyformer/objectives/objective.py`, `tinyformer/models/stack.py`, `drawing.py`. Read next: `counts.py`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import backends, text
from ..errors import UsageError
from ..functional import causal_mask
from ..models.stack import visible
from ..objectives import OBJECTIVES, Batch
from ..objectives.next_sentence import SPECIAL
from ..text.documents import documents
from ..text.tokenizers import decoded
from ..text.words import split_words
from .drawing import draw, readable, runs, weights

MOST = 512  # tokens in a row, unless a context is given
HIDING = ("masked", "span-corruption")  # objectives that can be told what to hide

Pattern = tuple[tuple[bool, ...], ...]


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Tokens as ids and as text; bytes that are no UTF-8 are escaped."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Inspection:
    """A row of text as a model sees it. Plain values, so that `dataclasses.asdict` can be printed as JSON.

    Attributes:
        mode: of the model.
        objective: that made the row.
        vocabulary: how many ids there are.
        texts: what the objective was given: one text, or a pair.
        left_out: tokens of the text for which the context has no room.
        inputs: what the model reads; its encoder, if it has a decoder, too.
        decoder_inputs: what the decoder of an encoder-decoder reads.
        targets: what the model shall say, at each of its (decoder) inputs.
        weights: how much each target counts.
        documents: of each input, its number within the row, 0 for padding; None where nothing is told apart.
        positions: of the inputs, where they restart within the row; else None.
        segments: of the inputs, where a pair is told apart.
        label: next sentence: 0 if the second text follows the first, 1 if it is from elsewhere.
        drawn: the row as papers draw it: "input" and "target", without what closes them in practice.
        sentinels: names of the sentinels in the row by their letters in `drawn`.
        attention: which position (row) may look at which (column): "encoder" and "decoder" among themselves, "cross"
            from the decoder to the encoder.
        labels: of a task with a head: what that should say at each input, empty where it is not asked.
        names: of the texts, where they are no usual ones.
        rows: that the example takes; more than one where a text is longer than the context.
        row: which of them this is, from 0.
    """

    mode: str
    objective: str
    vocabulary: int
    texts: tuple[Tokens, ...]
    left_out: int
    inputs: Tokens
    decoder_inputs: Tokens | None
    targets: Tokens
    weights: tuple[float, ...]
    documents: tuple[int, ...] | None
    positions: tuple[int, ...] | None
    segments: tuple[int, ...] | None
    label: int | None
    drawn: dict[str, str]
    sentinels: dict[str, str]
    attention: dict[str, Pattern]
    labels: tuple[str, ...] | None = None
    names: tuple[str, ...] = ()
    rows: int = 1
    row: int = 0


def tokenizer_for(kind: str, content: bytes, mode: str) -> text.Tokenizer:
    """A tokenizer for a short text, with the special tokens of a mode.

    Args:
        kind: "words", "bytes" or "chars", or the path of a `tokenizer.json`.
        content: the text.
        mode: of the model.

    Raises:
        UsageError: the kind is unknown, or can only be learned from a long text.
        TinyformerError: the text is not UTF-8 ("chars"), or the file is damaged.
    """
    special = text.special_tokens(mode)
    if kind == "words":
        return text.WordTokenizer(list(dict.fromkeys(split_words(content))), special)
    if kind == "chars":
        return text.CharTokenizer("".join(sorted(set().union(*decoded([content], "the text")))), special)
    if kind == "bpe":
        raise UsageError("byte pairs are learned from a long text; give a tokenizer.json, or a run that has one")
    if kind != "bytes" and not Path(kind).exists():
        raise UsageError(f"there is no tokenizer {kind!r}; choose words, bytes, chars, a tokenizer.json, or a run")
    return text.make_tokenizer(kind, [], special_tokens=special)


def inspect(
    content: bytes,
    tokenizer: text.Tokenizer,
    objective: str,
    *,
    context: int | None = None,
    hide: Sequence[str] = (),
    seed: int = 0,
) -> Inspection:
    """Make a row of a text, as training does, and show all that a model gets of it.

    Args:
        content: the text. Blank lines separate documents, a tab the source and the target of "seq2seq".
        tokenizer: with the special tokens that the objective needs.
        objective: its name, one of `OBJECTIVES`.
        context: of the model; what does not fit is left out. By default what the text takes, up to `MOST`.
        hide: words to hide, each wherever it occurs; by default the objective draws. Neighbours make one span.
        seed: of what is drawn.

    Raises:
        UsageError: there is too little text, or what a pair needs is missing; a word to hide does not occur, or the
            objective hides nothing; the tokenizer lacks a token.
        TinyformerError: the tokenizer cannot encode the text.
    """
    if not content.strip():
        raise UsageError("the text is empty; give a sentence, or another line of the file")
    texts = _texts(content, tokenizer, objective)
    if context is None:
        context = max(SPECIAL + 2, min(MOST, len(texts[0]) + SPECIAL)) if objective == "next-sentence" else MOST
    options = {"line_ends": text.line_ends(tokenizer)} if objective == "next-sentence" else {}
    maker = OBJECTIVES[objective].of(tokenizer, context, **options)
    left_out = 0
    if len(texts) == 1:
        (ids,) = texts
        row = ids[: maker.row_tokens(context)]
        texts, left_out = [row], len(ids) - len(row)
        if len(row) < 2:
            raise UsageError(f"the text is a single token, and the objective {objective} needs two; give a longer one")
    else:
        row = tuple(texts)
        _check_lengths(objective, texts, context)
    if not hide:
        batch = maker.corrupt([row], [np.random.default_rng(seed)])
    elif objective in HIDING:
        batch = maker.corrupt([row], hidden=[_chosen(tokenizer, row, hide)])
    else:
        raise UsageError(f"the objective {objective} hides no words; leave --hide out, or use {' or '.join(HIDING)}")
    decoder_inputs, labels = batch.decoder_inputs, batch.labels
    drawn, sentinels = draw(objective, tokenizer, batch)
    return Inspection(
        mode=maker.mode,
        objective=objective,
        vocabulary=tokenizer.vocabulary_size,
        texts=tuple(tokens_of(tokenizer, ids) for ids in texts),
        left_out=left_out,
        inputs=tokens_of(tokenizer, batch.inputs[0]),
        decoder_inputs=None if decoder_inputs is None else tokens_of(tokenizer, decoder_inputs[0]),
        targets=tokens_of(tokenizer, batch.targets[0]),
        weights=tuple(weights(batch).tolist()),
        documents=_unless(batch.mask, np.ones_like(batch.inputs)),
        positions=_unless(batch.positions, np.arange(batch.inputs.shape[1])[None]),
        segments=None if batch.segments is None else tuple(batch.segments[0].tolist()),
        label=None if labels is None else int(labels[0]),
        drawn=drawn,
        sentinels=sentinels,
        attention=attention(maker.mode, batch),
    )


def attention(mode: str, batch: Batch) -> dict[str, Pattern]:
    """Which positions of a batch's first row may look at which.

    Args:
        mode: of the model.
        batch: as the model gets it.

    Returns:
        For "encoder" and "decoder" which of its own positions each one sees, `t t`; for "cross" which positions of the
        source each one of the target sees, `t s`.
    """
    length = batch.inputs.shape[1]
    if mode == "decoder":
        return {"decoder": _seen(batch, length, length, batch.mask, causal=True)}
    patterns = {"encoder": _seen(batch, length, length, batch.mask)}
    if mode == "encoder-decoder":
        targets = batch.decoder_inputs.shape[1]
        patterns["cross"] = _seen(batch, targets, length, batch.mask)
        patterns["decoder"] = _seen(batch, targets, targets, causal=True)
    return patterns


def _seen(batch: Batch, queries: int, keys: int, mask: Any = None, *, causal: bool = False) -> Pattern:
    xp = backends.of(batch.inputs)
    pattern = causal_mask(xp, queries, keys) if causal else xp.ones((queries, keys), dtype=xp.bool)
    allowed = visible(xp, mask, queries)
    if allowed is not None:
        pattern = xp.logical_and(pattern, allowed[0, 0])
    return tuple(map(tuple, pattern.tolist()))


def _texts(content: bytes, tokenizer: text.Tokenizer, objective: str) -> list[np.ndarray]:
    """The ids of which a row is made, laid out as for training: one stream, or a pair."""
    if objective == "seq2seq":
        source, tab, target = content.partition(b"\t")
        if not (tab and source.strip() and target.strip()) or b"\t" in target:
            raise UsageError("for seq2seq, give a source, one tab, and a target")
        return [tokenizer.encode(source), tokenizer.encode(target)]
    if objective in ("causal", "span-corruption"):
        return [tokenizer.encode(content)]
    encoded = [tokenizer.encode(b"".join(document)) for document in documents([content])]
    if objective == "next-sentence":
        if len(encoded) < 2:
            raise UsageError("next-sentence prediction needs a second document; put a blank line before it")
        return encoded[:2]
    cls, sep = ([tokenizer.special_id(role)] for role in ("cls", "sep"))
    return [np.concatenate([part for ids in encoded for part in (cls, ids, sep)]).astype(np.int32)]


def _check_lengths(objective: str, texts: Sequence[np.ndarray], context: int) -> None:
    """A pair for "seq2seq" is not cut."""
    for what, ids in zip(("source", "target"), texts):
        if objective == "seq2seq" and len(ids) >= context:
            raise UsageError(f"the {what} has {len(ids) + 1} tokens with its end, and the context is {context}")


def _chosen(tokenizer: text.Tokenizer, ids: np.ndarray, words: Sequence[str]) -> np.ndarray:
    """True for the tokens that hold one of the words, of the same shape as `ids`.

    Raises:
        UsageError: a word does not occur, or not in tokens of its own.
    """
    special = np.isin(ids, list(tokenizer.special_tokens.values()))
    chosen = np.zeros(len(ids), bool)
    for word in words:
        stretches = runs(~special)
        places = [start + place for start, stop in stretches for place in _places(tokenizer, ids[start:stop], word)]
        if not places:
            raise UsageError(f"{word!r} is no word of the row; hide words as they stand in it")
        chosen[places] = True
    spans, known = len(runs(chosen)), len(tokenizer.sentinels)
    if known and spans >= known:
        raise UsageError(f"{spans} spans are hidden, and {known} sentinels are not enough; hide fewer words")
    return chosen


def _places(tokenizer: text.Tokenizer, ids: np.ndarray, word: str) -> list[int]:
    """The tokens of which a word consists, wherever it occurs.

    Whole words count, whatever tokens they share with white space. Where there are none, as in a script that writes
    without spaces, parts of words do that are whole tokens.
    """
    encoded, starts, stops = tokenizer.decode(ids), [], [0]
    for i in range(len(ids)):
        piece = tokenizer.decode(ids[i : i + 1])
        stops.append(encoded.find(piece, stops[-1]) + len(piece))
        starts.append(stops[-1] - len(piece.lstrip()))
    del stops[0]
    content = encoded.decode("utf-8", "surrogateescape")
    found = list(re.finditer(r"\s+".join(map(re.escape, word.split())) or r"(?!)", content))
    whole = [match for match in found if not any(_inside_word(content, place) for place in match.span())]
    spans = [
        tuple(len(content[:place].encode("utf-8", "surrogateescape")) for place in m.span()) for m in whole or found
    ]
    if not whole:
        spans = [(start, stop) for start, stop in spans if start in starts and stop in stops]
    return [i for i in range(len(ids)) for start, stop in spans if starts[i] < stop and start < stops[i]]


def _inside_word(content: str, place: int) -> bool:
    return 0 < place < len(content) and content[place - 1].isalnum() and content[place].isalnum()


def tokens_of(tokenizer: text.Tokenizer, ids: np.ndarray) -> Tokens:
    """Ids, `t`, beside what each stands for."""
    return Tokens(tuple(ids.tolist()), tuple(readable(tokenizer.decode(ids[i : i + 1])) for i in range(len(ids))))


def _unless(array: Any, usual: Any) -> tuple[int, ...] | None:
    """The first row of an array of a batch, as integers, unless it says nothing."""
    return None if array is None or (array == usual).all() else tuple(map(int, array[0].tolist()))
