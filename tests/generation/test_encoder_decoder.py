"""The decoding loop on real encoder-decoders: one row of memory, the end token, the context's limit."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyformer.errors import TinyformerError, UsageError
from tinyformer.generation import EncoderDecoderState, Options, decode, generate, generate_texts
from tinyformer.generation.strategies import BeamSearch, Sampler
from tinyformer.models import ModelConfig, build
from tinyformer.text import ByteTokenizer, CharTokenizer, special_tokens

END, SOURCE = 3, np.array([1, 2, 0, 2, 3])
LETTERS = CharTokenizer("abcd", special_tokens("encoder-decoder"))


def encoder_decoder(vocabulary=LETTERS.vocabulary_size, context=8, seed=3, sharpness=8, **given):
    shape = {"layers": 2, "width": 16, "heads": 2, "hidden": 32, "norm": "rms", "positions": "relative", **given}
    config = ModelConfig(vocabulary=vocabulary, context=context, mode="encoder-decoder", **shape)
    model = build(config, dtype="float64", seed=seed)
    for parameter in model.parameters().values():
        if parameter.ndim == 2:
            parameter.array *= sharpness  # far from uniform, so that a wrong position or key changes the text
    return model


def log_probabilities(model, source, targets):
    """Of targets of one length, from one call of the model on all of them."""
    targets = np.array(targets)
    written = np.concatenate([np.zeros_like(targets[:, :1]), targets[:, :-1]], axis=1)
    logits = model(np.repeat(source[None], len(targets), axis=0), written).numpy()
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return np.take_along_axis(log_p, targets[..., None], axis=-1).sum(axis=(1, 2))


def searched(model, options, end=END):
    size = model.config.vocabulary
    search = BeamSearch(np.array([], int), size, options, lambda tokens: tokens[-1] == end)
    return list(decode(EncoderDecoderState(model, SOURCE, 0, cached=options.cache), search, options.tokens))


@pytest.mark.parametrize("positions", ["relative", "learned", "sinusoidal", "rotary", "none"])
@pytest.mark.parametrize(
    "options",
    [{"temperature": 0}, {"temperature": 1, "samples": 3, "stop": (b"da",)}, {"beams": 3, "samples": 2}],
    ids=["greedy", "samples", "beams"],
)
def test_the_cache_changes_nothing(positions, options):
    model = encoder_decoder(positions=positions)
    for source in (b"a", b"abcdabc"):
        with_cache = generate_texts(model, LETTERS, source, Options(**options))
        assert with_cache == generate_texts(model, LETTERS, source, Options(cache=False, **options))


@given(st.integers(0, 1000), st.booleans())
def test_a_state_gives_the_logits_of_a_call(seed, cached):
    """After any moves of the rows, compared with a call on each row's whole target."""
    rng = np.random.default_rng(seed)
    model = encoder_decoder(vocabulary=7, seed=seed, sharpness=3)
    state = EncoderDecoderState(model, SOURCE, 0, cached=cached)
    rows, logits = np.zeros((1, 1), int), state.start()
    for _ in range(4):
        expected = model(np.repeat(SOURCE[None], len(rows), axis=0), rows).numpy()[:, -1]
        np.testing.assert_allclose(logits, expected, rtol=1e-10, atol=1e-10)
        parents, tokens = rng.integers(0, len(rows), size=3), rng.integers(0, 7, size=3)
        rows = np.concatenate([rows[parents], tokens[:, None]], axis=1)
        logits = state.advance(parents, tokens)


def test_greedy_is_the_argmax_of_the_models_own_logits():
    model = encoder_decoder()
    source = np.append(LETTERS.encode(b"cab"), LETTERS.special_id("end"))
    written = [LETTERS.special_id("pad")]
    for _ in range(8):
        written.append(int(model(source[None], np.array([written])).numpy()[0, -1].argmax()))
    text = b"".join(generate_texts(model, LETTERS, b"cab"))  # greedy without being told
    assert text == LETTERS.decode(written[1:]).split(b"</s>")[0]


@given(st.integers(0, 10_000), st.floats(0, 2), st.booleans())
def test_a_beam_that_keeps_everything_finds_the_best_of_all_targets(seed, alpha, cached):
    """All targets of up to 4 tokens that stop at their first end token, scored by hand (Wu 2016, eq. 14)."""
    model = encoder_decoder(vocabulary=4, seed=seed, sharpness=5)
    scores = {}
    for length in range(1, 5):
        targets = [
            target
            for target in itertools.product(range(4), repeat=length)
            if END not in target[:-1] and (length == 4 or target[-1] == END)
        ]
        factor = ((5 + length) / 6) ** alpha
        scores |= zip(targets, log_probabilities(model, SOURCE, targets) / factor)
    options = Options(tokens=4, beams=256, samples=3, length_penalty=alpha, cache=cached)
    found = searched(model, options)
    assert [text.score for text in found] == pytest.approx(sorted(scores.values(), reverse=True)[:3])
    assert [scores[tuple(text.tokens)] for text in found] == pytest.approx([text.score for text in found])


def test_the_source_is_read_once_and_a_token_costs_one_token(monkeypatch):
    model = encoder_decoder()
    calls = {"encoded": 0, "seen": 0, "read": 0}

    def counted(owner, name, what, amount=lambda *args: 1):
        inner = getattr(owner, name)

        def call(*args, **more):
            calls[what] += amount(*args)
            return inner(*args, **more)

        monkeypatch.setattr(owner, name, call)

    counted(model, "encode", "encoded")
    counted(model, "decode", "read", lambda ids, memory: ids.shape[1])
    for block in model.decoder.blocks:
        counted(block.cross_attention, "keys_values", "seen")
    searched(model, Options(tokens=8, beams=3), end=-1)
    assert calls == {"encoded": 1, "seen": 2, "read": 8}


def test_one_row_of_memory_serves_all_beams():
    state = EncoderDecoderState(encoder_decoder(), SOURCE, 0)
    state.start()
    state.advance(np.zeros(5, int), np.arange(5))
    layer = state.cache.layers[0]
    assert len(layer.keys) == 5
    assert len(layer.memory.keys.array) == 1


@pytest.mark.parametrize("cached", [True, False])
def test_a_target_forgets_nothing_and_ends_with_the_context(cached):
    model = encoder_decoder(context=5)
    pieces = list(generate(model, LETTERS, b"ab", Options(tokens=100, temperature=1, cache=cached, seed=1)))
    assert (pieces[-1].ended, pieces[-1].tokens) == ("length", 5)
    state = EncoderDecoderState(model, SOURCE, 0, cached=cached)
    state.start()
    for _ in range(4):
        state.advance(np.array([0]), np.array([1]))
    with pytest.raises(ValueError, match="at most 5 tokens"):
        state.advance(np.array([0]), np.array([1]))


class Scripted:
    """A model that writes given ids, whatever it reads, and remembers the source that it has read."""

    def __init__(self, tokenizer, answer, mode="encoder-decoder", **config):
        self.answer = [*answer, *[0] * 32]
        shape = {"layers": 1, "width": 8, "heads": 1, "hidden": 8, "context": 32, "mode": mode}
        self.config = ModelConfig(vocabulary=tokenizer.vocabulary_size, **shape | config)
        self._logits = build(ModelConfig(vocabulary=1, layers=1, width=8, heads=1, hidden=8)).tokens

    def encode(self, source, mask=None):
        self.source = source[0].tolist()

    def new_cache(self, rows, memory=None):
        return self

    def select(self, parents):
        pass

    def decode(self, ids, memory, *, cache, last_only, mask=None):
        self.written = getattr(self, "written", -1) + 1
        logits = np.zeros((len(ids), 1, self.config.vocabulary))
        logits[:, :, self.answer[self.written]] = 9
        return type("Logits", (), {"array": logits})

    def __call__(self, ids, *, cache, last_only):
        self.source = ids[0].tolist() if not hasattr(self, "source") else self.source
        return self.decode(ids, None, cache=cache, last_only=last_only)


def test_a_text_ends_at_the_end_token_which_is_not_shown():
    answer = LETTERS.encode_marked(b"<extra_id_0>ab<extra_id_1>c</s>dd")
    (*_, last) = pieces = list(generate(Scripted(LETTERS, answer), LETTERS, b"a"))
    assert b"".join(piece.text for piece in pieces) == b"<extra_id_0>ab<extra_id_1>c"
    assert (last.ended, last.tokens, last.text) == ("end", 6, b"")


def test_a_character_that_the_end_token_cuts_is_shown():
    tokenizer = ByteTokenizer(special_tokens("encoder-decoder"))
    answer = [*b"caf\xc3", tokenizer.special_id("end")]
    assert generate_texts(Scripted(tokenizer, answer), tokenizer, b"a") == [b"caf\xc3"]


def test_a_decoder_s_text_ends_there_too_and_begins_after_it():
    tokenizer = ByteTokenizer(["<|endoftext|>"])
    model = Scripted(tokenizer, [*b"abc", 256], mode="decoder")
    pieces = list(generate(model, tokenizer, b"", Options(temperature=0)))
    assert model.source == [256]
    assert b"".join(piece.text for piece in pieces) == b"abc"
    assert pieces[-1].ended == "end"


def test_names_of_special_tokens_in_a_source_mean_these_and_the_end_is_appended():
    model = Scripted(LETTERS, [])
    generate_texts(model, LETTERS, b"ab<extra_id_0>c")
    assert model.source == [0, 1, LETTERS.vocabulary_size - 1, 2, LETTERS.special_id("end")]
    ready = Scripted(LETTERS, [])
    generate_texts(ready, LETTERS, np.array(model.source))
    assert ready.source == model.source


def test_a_source_does_not_count_as_repetition():
    class Flat(Scripted):
        def decode(self, ids, *rest, **more):
            result = super().decode(ids, *rest, **more)
            result.array = np.linspace(5, 1, self.config.vocabulary)[None, None].repeat(len(ids), axis=0)
            return result

    options = Options(tokens=3, repetition_penalty=100.0)
    assert generate_texts(Flat(LETTERS, []), LETTERS, b"aab", options) == [b"abc"]


@pytest.mark.parametrize("options", [{"temperature": 5.0, "samples": 4}, {"beams": 3}, {"temperature": 0}])
def test_an_id_without_a_meaning_is_never_written(options):
    """Published models have room for more tokens than their tokenizers know."""
    model = encoder_decoder(vocabulary=4 * LETTERS.vocabulary_size, sharpness=1)
    generate_texts(model, LETTERS, b"ab", Options(tokens=8, **options))  # decoding would raise


def test_greedy_is_an_encoder_decoders_default():
    assert Options().for_mode("encoder-decoder").temperature == 0
    assert Options().for_mode("decoder").temperature == 0.8
    assert Options(temperature=0.3).for_mode("encoder-decoder").temperature == 0.3
    with pytest.raises(UsageError, match="same text 2 times"):
        generate(encoder_decoder(), LETTERS, b"a", Options(samples=2))


@pytest.mark.parametrize(
    ("model", "source", "error", "message"),
    [
        ({"mode": "encoder"}, b"a", UsageError, "an encoder, which cannot write text: use tinyformer fill"),
        ({}, b"", UsageError, "the source is empty"),
        ({}, b"xyz", TinyformerError, "the source has the character 'x'"),
        ({"positions": "learned"}, b"ab" * 20, UsageError, "the source has 41 tokens.*learned 32 positions"),
    ],
)
def test_what_cannot_be_answered(model, source, error, message):
    with pytest.raises(error, match=message):
        generate(Scripted(LETTERS, [], **model), LETTERS, source)


def test_relative_positions_read_a_source_longer_than_the_context():
    assert generate_texts(encoder_decoder(context=8), LETTERS, b"abcd" * 5)


def test_a_tokenizer_without_the_marks_of_the_mode():
    plain = CharTokenizer("abcd")
    with pytest.raises(UsageError, match=r"no </s>.*--mode encoder-decoder"):
        generate(encoder_decoder(), plain, b"ab")


def test_a_sample_does_not_depend_on_its_company():
    model, size = encoder_decoder(sharpness=2), LETTERS.vocabulary_size
    for seed in range(5):
        texts = []
        for samples in (1, 4):
            options = Options(tokens=8, temperature=1.0, samples=samples, seed=seed)
            state = EncoderDecoderState(model, SOURCE, 0)
            sampler = Sampler(np.array([], int), size, options, lambda tokens: tokens[-1] < 10)
            texts.append([part.tokens for part in decode(state, sampler, 8) if part.sample == 0])
        assert texts[0] == texts[1]
