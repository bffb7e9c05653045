"""What a model reads before it writes: a prompt or a source as token ids, and what it cannot read.

Read before: `tinyformer/text/special.py`. Read next: `decode.py`, `fill.py`.
"""

import numpy as np

from ..errors import TinyformerError, UsageError


def encode_prompt(tokenizer, prompt: bytes) -> np.ndarray:
    """Token ids of a decoder's prompt, at least one.

    An empty prompt begins a new text, after the end token of the one before, as GPT-2 was trained; or a new line
    where there is no end token; or at token 0 where there is not even that.
    """
    if prompt:
        return np.asarray(tokenizer.encode(prompt, "the prompt"), dtype=np.int64)
    end = end_token(tokenizer)
    if end is not None:
        return np.array([end])
    try:
        return np.asarray(tokenizer.encode(b"\n"), dtype=np.int64)
    except TinyformerError:
        return np.array([0])


def encode_source(tokenizer, source: bytes, name: str = "the source") -> np.ndarray:
    """Token ids of an encoder-decoder's source, closed by the end token as in training.

    Names of special tokens in it mean these; `name` is what error messages call the text.

    Raises:
        UsageError: it is empty, or the tokenizer has no end token.
        TinyformerError: it cannot be encoded.
    """
    if not source:
        raise UsageError(f"{name} is empty: an encoder-decoder answers a text, give one with --prompt")
    ids = tokenizer.encode_marked(source, name)
    return np.append(ids, tokenizer.special_id("end")).astype(np.int64)


def end_token(tokenizer) -> int | None:
    """The token that ends a text, where the tokenizer has one."""
    try:
        return tokenizer.special_id("end")
    except UsageError:
        return None


def check_tokenizer(model, tokenizer) -> None:
    """Raises:
    TinyformerError: the tokenizer has more tokens than the model, so it is another model's.
    """
    if tokenizer.vocabulary_size > model.config.vocabulary:
        raise TinyformerError(
            f"the tokenizer has {tokenizer.vocabulary_size} tokens and the model {model.config.vocabulary}: "
            "use the tokenizer that the model was trained with"
        )


def check_length(model, ids: np.ndarray, what: str) -> None:
    """An encoder reads any length, unless its positions are learned: then there are as many as it was trained on.

    Raises:
        UsageError: it is too long; `what` is what the message calls it.
    """
    config = model.config
    if config.positions == "learned" and len(ids) > config.context:
        raise UsageError(
            f"{what} has {len(ids):,} tokens, and the model has learned {config.context:,} positions: shorten it"
        )
