"""Filling in what is missing from a sentence: by an encoder, token for token, or by an encoder-decoder, span by span.

An encoder scores every token of the vocabulary at each `<mask>` (Devlin 2019, §3.1). A T5 reads sentinels in the
place of the spans that are missing, and writes each sentinel followed by its span (Raffel 2020, §3.1.4).

Read before: `decode.py`, `tinyformer/text/special.py`.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .. import backends, ops
from ..errors import UsageError
from ..tensor import no_grad
from ..text.special import SPELLINGS, sentinel
from ..text.tokenizers import as_bytes
from .decode import decode
from .filters import log_softmax
from .options import Options
from .prompts import check_length, check_tokenizer, encode_source
from .state import EncoderDecoderState, finite
from .strategies import BeamSearch, largest

MASK = SPELLINGS["mask"][0]


@dataclass(frozen=True)
class Candidate:
    """What may stand in the place of a mask.

    Attributes:
        token: its id.
        text: what the token stands for; the name of a special token.
        probability: that the model gives it in this place.
        sentence: with the token in place of this mask.
    """

    token: int
    text: bytes
    probability: float
    sentence: bytes


@dataclass(frozen=True)
class Filling:
    """What an encoder-decoder writes for all that is missing from a sentence.

    Attributes:
        spans: of each place, in the order of the sentence; None where the model wrote none.
        probability: of all answers found that have these spans.
        sentence: with the spans in their places.
        answer: the likeliest of them as the model wrote it: sentinels and spans.
    """

    spans: tuple[bytes | None, ...]
    probability: float
    sentence: bytes
    answer: bytes


def fill_masks(model, tokenizer, text: bytes | str, top: int = 5) -> list[list[Candidate]]:
    """The likeliest tokens in the place of each mask of a sentence, each by itself.

    Args:
        model: an encoder.
        tokenizer: the one that the model was trained with.
        text: a sentence in which `<mask>` stands where a token is missing.
        top: how many candidates for a mask.

    Returns:
        For each mask, its candidates from the likeliest down.

    Raises:
        UsageError: the model is no encoder, there is no mask, or the sentence is longer than learned positions.
        TinyformerError: the text cannot be encoded, or the model's output is not finite.
    """
    _check(model, tokenizer, top, "encoder")
    parts, masks = _split(as_bytes(text, "the sentence"), SPELLINGS["mask"])
    cls, sep, mask = (tokenizer.special_id(role) for role in ("cls", "sep", "mask"))
    ids = np.concatenate([[cls], tokenizer.encode_marked(text, "the sentence"), [sep]])
    check_length(model, ids, "the sentence, with a mark before and after,")
    with no_grad():
        hidden = model.hidden(ids[None])[0]
        logits = model.score(ops.take(hidden, hidden.backend.from_host(np.flatnonzero(ids == mask)))).array
    logits = finite(backends.of(logits).to_host(logits)[:, : tokenizer.vocabulary_size])

    def candidate(place: int, token: int, probability: float) -> Candidate:
        word = tokenizer.decode([token])
        words = [word if i == place else None for i in range(len(masks))]
        return Candidate(token, word, probability, _join(tokenizer, parts, masks, words))

    return [
        [candidate(place, int(token), float(row[token])) for token in largest(row, top)]
        for place, row in enumerate(np.exp(log_softmax(logits)))
    ]


def fill_spans(model, tokenizer, text: bytes | str, top: int = 5) -> list[Filling]:
    """The likeliest answers of a model of span corruption: a beam search over whole answers.

    An answer is over at the end token, or at a sentinel that the sentence does not have: the paper closes a
    target with one, and what follows answers nothing.

    Args:
        model: an encoder-decoder.
        tokenizer: the one that the model was trained with.
        text: a sentence with sentinels, `<extra_id_0>` and so on, where a span is missing. Each `<mask>` stands for
            the next sentinel that is not there.
        top: how many answers, and the width of the search: 1 takes the likeliest token each time.

    Returns:
        The fillings from the likeliest down; fewer than `top` where answers have the same spans.

    Raises:
        UsageError: the model is no encoder-decoder, there is neither mask nor sentinel, or the sentence is longer
            than learned positions.
        TinyformerError: the text cannot be encoded, or the model's output is not finite.
    """
    _check(model, tokenizer, top, "encoder-decoder")
    sentinels = {sentinel(number): token for number, token in enumerate(tokenizer.sentinels)}
    text = _with_sentinels(as_bytes(text, "the sentence"), sentinels)
    parts, names = _split(text, sentinels)
    marks = [sentinels[name.decode()] for name in names]
    source = encode_source(tokenizer, text, "the sentence")
    check_length(model, source, "the sentence, with the end token,")
    closing = {tokenizer.special_id("end"), *sentinels.values()}.difference(marks)
    options = Options(tokens=model.config.context, beams=top, samples=top, length_penalty=0.0)
    vocabulary = tokenizer.vocabulary_size
    state = EncoderDecoderState(model, source, tokenizer.special_id("pad"), vocabulary=vocabulary)
    search = BeamSearch(np.empty(0, dtype=np.int64), vocabulary, options, lambda tokens: tokens[-1] in closing)
    fillings: dict[tuple[bytes | None, ...], Filling] = {}
    for found in decode(state, search, options.tokens):
        answer = found.tokens[:-1] if found.tokens[-1] in closing else found.tokens
        written = _spans(answer, set(marks))
        spans = tuple(tokenizer.decode(written[mark]) if mark in written else None for mark in marks)
        p = float(np.exp(found.score))
        if spans in fillings:
            fillings[spans] = replace(fillings[spans], probability=fillings[spans].probability + p)
        else:
            fillings[spans] = Filling(spans, p, _join(tokenizer, parts, names, spans), tokenizer.decode(answer))
    return sorted(fillings.values(), key=lambda filling: -filling.probability)


def _spans(answer: list[int], marks: set[int]) -> dict[int, list[int]]:
    """What stands after each mark, up to the next one; of a mark that comes twice, the first time."""
    places = [place for place, token in enumerate(answer) if token in marks]
    spans: dict[int, list[int]] = {}
    for start, stop in zip(places, [*places[1:], len(answer)]):
        spans.setdefault(answer[start], answer[start + 1 : stop])
    return spans


def _with_sentinels(text: bytes, sentinels: Iterable[str]) -> bytes:
    """The text with a sentinel of these that it has not yet for each mask."""
    pattern = _pattern(SPELLINGS["mask"])
    free = [name.encode() for name in sentinels if name.encode() not in text]
    masks = len(re.findall(pattern, text))
    if masks > len(free):
        raise UsageError(f"the sentence has {masks} masks, and the tokenizer sentinels for {len(free)}")
    names = iter(free)
    return re.sub(pattern, lambda _: next(names), text)


def _split(text: bytes, names: Iterable[str]) -> tuple[list[bytes], list[bytes]]:
    """The parts of a text between marks with these names, and the marks.

    Raises:
        UsageError: there are none.
    """
    pieces = re.split(_pattern(names), text)
    if len(pieces) == 1:
        raise UsageError(
            f"the sentence has no {MASK}: put it where something is missing, as in 'I love this {MASK} car'"
        )
    return pieces[::2], pieces[1::2]


def _pattern(names: Iterable[str]) -> bytes:
    """Matches any of the names, and nothing where there are none."""
    return b"(" + (b"|".join(re.escape(name.encode()) for name in names) or b"(?!)") + b")"


def _join(tokenizer, parts: list[bytes], marks: list[bytes], texts: Sequence[bytes | None]) -> bytes:
    """The sentence with texts in the places of its marks; a mark stays where its text is None.

    What a tokenizer writes for a word begins with a space where words carry the space before them.
    """
    sentence = parts[0]
    for mark, text, part in zip(marks, texts, parts[1:]):
        if text is None:
            text = mark
        elif tokenizer.carries_space:
            sentence = sentence.removesuffix(b" ")
            text = text if sentence else text.removeprefix(b" ")
        sentence += text + part
    return sentence


def _check(model, tokenizer, top: int, mode: str) -> None:
    remedies = {
        "decoder": "which writes only onwards: use tinyformer generate",
        "encoder": "which fills single masks: use fill_masks",
        "encoder-decoder": "which fills spans: use fill_spans",
    }
    if model.config.mode != mode:
        raise UsageError(f"this model is of mode {model.config.mode}, {remedies[model.config.mode]}")
    if top < 1:
        raise UsageError(f"top must be at least 1, not {top}")
    check_tokenizer(model, tokenizer)
