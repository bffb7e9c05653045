"""Many sources at once: each is answered as it is by itself, by any model, and leaves when its answer ends."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.generation.test_encoder_decoder import LETTERS, encoder_decoder
from tinyformer.errors import TinyformerError
from tinyformer.generation import EncoderDecoderState, Options, answer_sources, decode, generate_texts
from tinyformer.generation.strategies import Sampler
from tinyformer.objectives import pad_rows

PAD, FINAL = 0, 4  # what begins a target, and what ends a source


class Few:
    """A tokenizer of five tokens, one of which ends a text; -1 is none."""

    vocabulary_size = 5

    def __init__(self, end=-1):
        self.end = end

    def special_id(self, role):
        return {"pad": PAD, "end": self.end}[role]


def made(seed, count=7, **given):
    """A model with two ids without a meaning, sources, their mask, and a tokenizer by which they end most variously."""
    shape = {"vocabulary": Few.vocabulary_size + 2, "context": 12, "tied": False, "sharpness": 20}
    model = encoder_decoder(seed=seed, **shape | given)
    rng = np.random.default_rng(seed)
    sources = [np.append(rng.integers(0, 4, rng.integers(1, 9)), FINAL) for _ in range(count)]
    padded, mask = pad_rows(sources, PAD)
    whole = [[*text, -1] for text in answer_sources(model, Few(), padded, mask=mask)]
    end = max(range(5), key=lambda end: len({text.index(end) for text in whole if end in text}))
    return model, sources, padded, mask, Few(end)


def alone(model, source, end):
    """The ids that the loop for a single source writes."""
    options = Options(temperature=0, tokens=model.config.context)
    sampler = Sampler(np.array([], int), Few.vocabulary_size, options, lambda tokens: tokens[-1] == end)
    state = EncoderDecoderState(model, source, PAD, vocabulary=Few.vocabulary_size)
    return [token for settled in decode(state, sampler, options.tokens) for token in settled.tokens]


@pytest.mark.parametrize("positions", ["relative", "learned", "sinusoidal", "rotary", "none"])
def test_each_is_answered_as_by_itself_token_for_token(positions):
    most = 0
    for seed in range(3):
        model, sources, padded, mask, tokenizer = made(seed, positions=positions)
        expected = [alone(model, source, tokenizer.end) for source in sources]
        assert answer_sources(model, tokenizer, padded, mask=mask) == expected
        most = max(most, len(set(map(len, expected))))
    assert most > 2  # else no row left before another


def test_of_one_length_there_is_no_mask_and_one_alone_is_a_batch_as_well():
    model, *_, tokenizer = made(1)
    sources = np.array([[0, 1, FINAL], [3, 2, FINAL], [2, 2, FINAL]])
    expected = [alone(model, source, tokenizer.end) for source in sources]
    assert answer_sources(model, tokenizer, sources) == expected
    assert [answer_sources(model, tokenizer, sources[i : i + 1])[0] for i in range(3)] == expected
    assert answer_sources(model, tokenizer, sources, tokens=2) == [text[:2] for text in expected]
    assert len(answer_sources(model, Few(), sources, tokens=100)[0]) == 12  # the context


def test_what_is_written_is_the_text_that_generate_writes():
    model = encoder_decoder(context=12)
    for text in (b"a", b"abba", b"dcb"):
        end = LETTERS.special_id("end")
        (written,) = answer_sources(model, LETTERS, np.append(LETTERS.encode(text), end)[None])
        written = written[:-1] if written[-1] == end else written
        assert generate_texts(model, LETTERS, text) == [LETTERS.decode(written)]


@given(st.integers(0, 1000), st.booleans())
@settings(max_examples=settings.default.max_examples // 4 + 1)
def test_a_state_of_several_sources_gives_the_logits_of_a_call(seed, cached):
    """After rows moved and left, compared with a call on each source and the whole target."""
    rng = np.random.default_rng(seed)
    model = encoder_decoder(vocabulary=7, seed=seed, sharpness=3)
    lengths = rng.integers(1, 6, 5)
    sources, mask = pad_rows([rng.integers(0, 7, length) for length in lengths], 0)
    state = EncoderDecoderState(model, sources, 0, mask=mask, cached=cached)
    rows, whose, logits = np.zeros((5, 1), int), np.arange(5), state.start()
    for left in (5, 4, 2, 1, 1):
        for row, place, found in zip(rows, whose, logits, strict=True):
            expected = model(sources[place, : lengths[place]][None], row[None]).numpy()[0, -1]
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
        parents, tokens = rng.permutation(len(rows))[:left], rng.integers(0, 7, left)
        rows, whose = np.concatenate([rows[parents], tokens[:, None]], axis=1), whose[parents]
        logits = state.advance(parents, tokens)


def test_a_text_that_has_ended_costs_nothing_more(monkeypatch):
    (model, _, sources, mask, tokenizer), read = made(1, count=12), []
    inner = model.decode
    monkeypatch.setattr(model, "decode", lambda ids, *rest, **more: read.append(ids.shape) or inner(ids, *rest, **more))
    lengths = np.array([len(text) for text in answer_sources(model, tokenizer, sources, mask=mask)])
    assert lengths.min() < lengths.max()
    assert read == [(int((lengths > step).sum()), 1) for step in range(lengths.max())]


def test_other_array_libraries_write_the_same(xp):
    model, _, sources, mask, tokenizer = made(1)
    expected = answer_sources(model, tokenizer, sources, mask=mask)
    for parameter in model.parameters().values():
        parameter.array = xp.from_host(parameter.numpy())
    assert answer_sources(model, tokenizer, sources, mask=mask) == expected


def test_a_model_whose_weights_are_damaged_writes_nothing():
    model, _, sources, mask, tokenizer = made(1)
    model.tokens.weight.array[:] = np.nan
    with pytest.raises(TinyformerError, match="not finite"):
        answer_sources(model, tokenizer, sources, mask=mask)
