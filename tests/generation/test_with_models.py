"""The decoding loop on real decoders, with their own key/value caches."""

import itertools

import numpy as np
import pytest
from stand_ins import ByteTokenizer

from tinyformer.generation import Options, generate_texts
from tinyformer.models import build, resolve


def decoder(vocabulary=6, context=8, **given):
    config = resolve("tiny", vocabulary=vocabulary, context=context, layers=2, width=16, heads=2, **given)
    model = build(config, dtype="float64", seed=3)
    for parameter in model.parameters().values():
        if parameter.ndim == 2:
            parameter.array *= 15  # far from uniform, so that a wrong position or key changes the text
    return model


@pytest.mark.parametrize("positions", ["rotary", "learned", "sinusoidal", "none"])
@pytest.mark.parametrize(
    "options",
    [{"temperature": 0}, {"temperature": 1, "samples": 3, "stop": (b"fa",)}, {"beams": 3, "stop": (b"fa",)}],
    ids=["greedy", "samples", "beams"],
)
def test_the_cache_changes_nothing_within_and_beyond_the_context(positions, options):
    model, tokenizer = decoder(positions=positions), ByteTokenizer(6)
    for prompt in (b"a", b"abcde", b"abcdefabcdef"):
        with_cache = generate_texts(model, tokenizer, prompt, Options(tokens=25, **options))
        assert with_cache == generate_texts(model, tokenizer, prompt, Options(tokens=25, cache=False, **options))


def test_greedy_is_the_argmax_of_the_models_own_logits():
    model = decoder()
    ids = [0, 1]
    for _ in range(6):
        ids.append(int(model(np.array([ids])).numpy()[0, -1].argmax()))
    text = generate_texts(model, ByteTokenizer(6), b"ab", Options(tokens=6, temperature=0))[0]
    assert text == bytes(97 + token for token in ids[2:])


def test_a_beam_as_wide_as_all_texts_finds_the_likeliest():
    model = decoder(vocabulary=4)

    def log_probability(tokens):
        logits = model(np.array([[0, *tokens]])).numpy()[0, :-1]
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return log_p[np.arange(len(tokens)), tokens].sum()

    best = max(itertools.product(range(4), repeat=3), key=lambda tokens: log_probability(list(tokens)))
    found = generate_texts(model, ByteTokenizer(4), b"a", Options(tokens=3, beams=64))[0]
    assert found == bytes(97 + token for token in best)
