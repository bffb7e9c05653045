"""Writing text with a model: one loop for greedy choice, sampling and beam search.

`decode` is that loop: a state gives logits, a strategy chooses, until the texts are complete. `generate` puts
text around it: a prompt in, pieces of text out as they are written.

Read before: `state.py`, `strategies.py`, `prompts.py`. Read next: `fill.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import UsageError
from .options import Options
from .prompts import check_length, check_tokenizer, encode_prompt, encode_source, end_token
from .state import DecoderState, EncoderDecoderState, State
from .strategies import BeamSearch, Ended, Greedy, Sampler, Settled, Strategy
from .streaming import TextStream


def decode(state: State, strategy: Strategy, tokens: int) -> Iterator[Settled]:
    """Run a strategy on a state for at most `tokens` steps; yield what is settled as soon as it is."""
    logits = state.start()
    for left in reversed(range(tokens)):
        parents, chosen, settled = strategy.step(logits)
        yield from settled
        if not left or not len(chosen):
            break
        logits = state.advance(parents, chosen)
    yield from strategy.rest()


@dataclass(frozen=True)
class Piece:
    """A part of one sample's text, in order.

    Attributes:
        sample: which of the samples.
        text: whole UTF-8 characters, as long as the model writes valid ones. Special tokens stand there by name,
            such as the sentinels of a T5, except the end token, which is not shown.
        ended: None, or with a sample's last piece why it ended: "end" (by the end token), "stop" or "length".
        tokens: how many tokens the sample has so far, the end token included.
        score: of a text found by beam search (see `strategies.BeamSearch`), else 0.
    """

    sample: int
    text: bytes
    ended: str | None = None
    tokens: int = 0
    score: float = 0.0


def generate(model, tokenizer, prompt: bytes | np.ndarray, options: Options | None = None) -> Iterator[Piece]:
    """Write after a prompt; the text comes in pieces while it is written.

    A decoder continues the prompt, which is not repeated. An empty one begins a new line. The text may grow
    longer than the model's context (`state.window_length` has the rule).

    To an encoder-decoder the prompt is the source, in which names of special tokens, such as `<extra_id_0>`, mean
    these. What it writes is at most as long as its context.

    A text ends at the tokenizer's end token, where it has one. What cannot be done is refused by the call itself,
    before the first piece is asked for.

    Args:
        model: a decoder or an encoder-decoder, as `tinyformer.load` returns it.
        tokenizer: the one that the model was trained with.
        prompt: any bytes that the tokenizer can encode; or ready-made ids, 1-d, as the model reads them: a source
            with its end token and without padding.
        options: how to choose tokens; the defaults of `Options` where None.

    Raises:
        UsageError: the model is an encoder, or a source is empty or longer than learned positions.
        TinyformerError: the tokenizer is another model's, the prompt cannot be encoded, or the model's
            output is not finite.
    """
    config = model.config
    if config.mode == "encoder":
        raise UsageError("this model is an encoder, which cannot write text: use tinyformer fill")
    check_tokenizer(model, tokenizer)
    options = (options or Options()).for_mode(config.mode)
    size = tokenizer.vocabulary_size
    if config.mode == "decoder":
        ids = prompt if isinstance(prompt, np.ndarray) else encode_prompt(tokenizer, prompt)
        state = DecoderState(model, ids, cached=options.cache, vocabulary=size)
    else:
        source = prompt if isinstance(prompt, np.ndarray) else encode_source(tokenizer, prompt)
        check_length(model, source, "the source")
        start = tokenizer.special_id("pad")
        state = EncoderDecoderState(model, source, start, cached=options.cache, vocabulary=size)
        options = replace(options, tokens=min(options.tokens, config.context))
        ids = np.empty(0, dtype=np.int64)  # an answer may well repeat its source
    strategy_type = Sampler if options.beams is None else BeamSearch
    end = end_token(tokenizer)
    strategy = strategy_type(ids, size, options, end_test(tokenizer, options.stop, end))
    return _pieces(decode(state, strategy, options.tokens), tokenizer, options, end)


def _pieces(found: Iterator[Settled], tokenizer, options: Options, end: int | None) -> Iterator[Piece]:
    """What a strategy settles, as text that may be shown."""
    streams = [TextStream(options.stop) for _ in range(options.samples)]
    counts = [0] * options.samples
    for settled in found:
        stream, tokens = streams[settled.sample], settled.tokens
        counts[settled.sample] += len(tokens)
        complete = tokens[-1] == end
        text = stream.push(tokenizer.decode(tokens[:-1] if complete else tokens))
        ended_by = None
        if stream.stopped:
            ended_by = "stop"
        elif complete or counts[settled.sample] == options.tokens:
            text, ended_by = text + stream.close(), "end" if complete else "length"
        if text or ended_by:
            yield Piece(settled.sample, text, ended_by, counts[settled.sample], settled.score)


def generate_texts(model, tokenizer, prompt: bytes | np.ndarray, options: Options | None = None) -> list[bytes]:
    """What is written after a prompt as whole texts, one per sample. Arguments as for `generate`."""
    options = options or Options()
    texts = [b""] * options.samples
    for piece in generate(model, tokenizer, prompt, options):
        texts[piece.sample] += piece.text
    return texts


def answer_sources(
    model, tokenizer, sources: np.ndarray, *, mask: np.ndarray | None = None, tokens: int | None = None
) -> list[list[int]]:
    """What an encoder-decoder writes to several sources at once, each time the likeliest token.

    The same as to each of them alone, in less time: a step of all of them reads the weights once.

    Args:
        model: an encoder-decoder.
        tokenizer: the one that it was trained with.
        sources: ids as the encoder reads them, `b s`, each with its end token and then padding.
        mask: True where they are real, `b s`; None where all are.
        tokens: how many to write at most; default as many as the context has.

    Returns:
        The ids that it writes to each source. The last one is the end token, unless there was no room for it.

    Raises:
        UsageError: the tokenizer has no end token, or no padding.
        TinyformerError: the tokenizer is another model's, or the model's output is not finite.
    """
    check_tokenizer(model, tokenizer)
    end, start = tokenizer.special_id("end"), tokenizer.special_id("pad")
    state = EncoderDecoderState(model, sources, start, mask=mask, vocabulary=tokenizer.vocabulary_size)
    written: list[list[int]] = [[] for _ in sources]
    for settled in decode(state, Greedy(len(sources), end), min(tokens or model.config.context, model.config.context)):
        written[settled.sample] += settled.tokens
    return written


def sample_text(
    model,
    tokenizer,
    prompt: bytes,
    tokens: int,
    *,
    temperature: float = 0.8,
    seed: int = 0,
) -> bytes:
    """One sampled continuation of a prompt, without the prompt: what a trainer shows of its progress."""
    options = Options(tokens=tokens, temperature=temperature, seed=seed)
    return generate_texts(model, tokenizer, prompt, options)[0]


def end_test(tokenizer, stop: Sequence[bytes], end: int | None) -> Ended:
    """A test of whether the newest of some generated tokens is the end token, or completes a stop text."""
    # A token is at least one byte, so a stop text that ends in the newest token lies in this many tokens.
    reach = max(map(len, stop), default=0)

    def ended(tokens: Sequence[int]) -> bool:
        if tokens[-1] == end:
            return True
        if not stop:
            return False
        tail = tokenizer.decode(tokens[-reach:])
        return any(text in tail for text in stop)

    return ended
