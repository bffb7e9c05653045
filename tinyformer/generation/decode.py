"""Writing text with a model: one loop for greedy choice, sampling and beam search.

`decode` is that loop: a state gives logits, a strategy chooses, until the texts are complete. `generate` puts
text around it: a prompt in, pieces of text out as they are written.
Read `state.py` and `strategies.py` first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import TinyformerError
from .options import Options
from .state import DecoderState, State
from .strategies import BeamSearch, Ended, Sampler, Settled, Strategy
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
        text: whole UTF-8 characters, as long as the model writes valid ones.
        ended: None, or with a sample's last piece why it ended: "stop" or "length".
        tokens: how many tokens the sample has so far.
        score: of a text found by beam search (see `strategies.BeamSearch`), else 0.
    """

    sample: int
    text: bytes
    ended: str | None = None
    tokens: int = 0
    score: float = 0.0


def generate(model, tokenizer, prompt: bytes, options: Options | None = None) -> Iterator[Piece]:
    """Continue a prompt; the text comes in pieces while it is written.

    The prompt is not repeated. An empty one begins a new line. A text may grow longer than the model's
    context (`state.window_length` has the rule). What cannot be done is refused by the call itself, before the
    first piece is asked for.

    Args:
        model: a decoder, as `tinyformer.load` returns it.
        tokenizer: the one that the model was trained with.
        prompt: any bytes that the tokenizer can encode.
        options: how to choose tokens; the defaults of `Options` where None.

    Raises:
        TinyformerError: the tokenizer is another model's, the prompt cannot be encoded, or the model's
            output is not finite.
    """
    options = options or Options()
    if tokenizer.vocabulary_size > model.config.vocabulary:
        raise TinyformerError(
            f"the tokenizer has {tokenizer.vocabulary_size} tokens and the model {model.config.vocabulary}: "
            "use the tokenizer that the model was trained with"
        )
    ids = encode_prompt(tokenizer, prompt)
    ended = end_test(tokenizer, options.stop)
    strategy_type = Sampler if options.beams is None else BeamSearch
    strategy = strategy_type(ids, model.config.vocabulary, options, ended)
    return _pieces(DecoderState(model, ids, cached=options.cache), strategy, tokenizer, options)


def _pieces(state: State, strategy: Strategy, tokenizer, options: Options) -> Iterator[Piece]:
    """What a strategy settles, as text that may be shown."""
    streams = [TextStream(options.stop) for _ in range(options.samples)]
    counts = [0] * options.samples
    for settled in decode(state, strategy, options.tokens):
        stream = streams[settled.sample]
        counts[settled.sample] += len(settled.tokens)
        text = stream.push(tokenizer.decode(settled.tokens))
        ended_by = None
        if stream.stopped:
            ended_by = "stop"
        elif counts[settled.sample] == options.tokens:
            text, ended_by = text + stream.close(), "length"
        if text or ended_by:
            yield Piece(settled.sample, text, ended_by, counts[settled.sample], settled.score)


def generate_texts(model, tokenizer, prompt: bytes, options: Options | None = None) -> list[bytes]:
    """The continuations of a prompt as whole texts, one per sample. Arguments as for `generate`."""
    options = options or Options()
    texts = [b""] * options.samples
    for piece in generate(model, tokenizer, prompt, options):
        texts[piece.sample] += piece.text
    return texts


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


def encode_prompt(tokenizer, prompt: bytes) -> np.ndarray:
    """Token ids of a prompt, at least one; a new line for an empty prompt, or token 0 where there is none."""
    if prompt:
        ids = tokenizer.encode(prompt, "the prompt")
    else:
        try:
            ids = tokenizer.encode(b"\n")
        except TinyformerError:
            ids = [0]
    return np.asarray(ids, dtype=np.int64)


def end_test(tokenizer, stop: Sequence[bytes]) -> Ended:
    """A test of whether the newest of some generated tokens completes a stop text."""
    # A token is at least one byte, so a stop text that ends in the newest token lies in this many tokens.
    reach = max(map(len, stop), default=0)

    def ended(tokens: Sequence[int]) -> bool:
        if not stop:
            return False
        tail = tokenizer.decode(tokens[-reach:])
        return any(text in tail for text in stop)

    return ended
