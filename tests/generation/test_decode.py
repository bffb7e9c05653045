import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stand_ins import ByteTokenizer, StandInModel

from tinyformer.errors import TinyformerError, UsageError
from tinyformer.generation import Options, decode, generate, generate_texts, sample_text
from tinyformer.generation.state import DecoderState, window_length
from tinyformer.generation.strategies import BeamSearch, Sampler, largest

tokenizer = ByteTokenizer()
seeds = st.integers(0, 10_000)


def never(tokens):
    return False


def texts(model, prompt=b"abc", **options):
    return generate_texts(model, tokenizer, prompt, Options(**options))


def greedy_by_hand(model, prompt, tokens):
    """Read everything again at every token, through the published rule of the window."""
    ids = [byte - ord("a") for byte in prompt]
    kept = list(ids)
    for _ in range(tokens):
        window = kept[-window_length(len(kept), model.config.context) :]
        kept.append(int(model(np.array([window])).array[0, -1].argmax()))
    return bytes(ord("a") + token for token in kept[len(ids) :])


@given(seeds, st.integers(1, 9), st.integers(1, 20), st.booleans())
def test_greedy_takes_the_likeliest_token_also_beyond_the_context(seed, context, length, cache):
    model = StandInModel(context=context, seed=seed)
    prompt = bytes(ord("a") + n % 5 for n in range(1 + seed % 12))
    assert texts(model, prompt, tokens=length, temperature=0, cache=cache) == [greedy_by_hand(model, prompt, length)]


@given(st.integers(1, 300), st.integers(1, 40))
def test_the_window_drops_its_oldest_half_when_it_is_full(tokens, context):
    length = 0
    for _ in range(tokens):
        length += 1
        if length > context:
            length -= (context + 1) // 2
    assert window_length(tokens, context) == length


@given(
    seeds,
    st.fixed_dictionaries(
        {},
        optional={
            "top_k": st.integers(1, 6),
            "top_p": st.floats(0.1, 1),
            "repetition_penalty": st.floats(0.5, 2),
            "stop": st.just((b"de",)),
            "samples": st.integers(1, 3),
            "seed": st.integers(0, 99),
            "temperature": st.floats(0.3, 2),
        },
    ),
)
def test_the_cache_changes_nothing(seed, options):
    model = StandInModel(seed=seed, context=7)
    with_cache = texts(model, tokens=20, cache=True, **options)
    assert with_cache == texts(model, tokens=20, cache=False, **options)


def test_the_cache_reads_each_position_once_until_the_context_is_full():
    model = StandInModel(context=16)
    texts(model, b"abc", tokens=14, samples=3, temperature=1)
    assert model.positions_read == 3 + 13


@given(seeds, st.integers(0, 50))
def test_a_sample_does_not_depend_on_its_company(seed, random_seed):
    model = StandInModel(seed=seed)
    many = texts(model, tokens=12, samples=4, seed=random_seed, temperature=1.5)
    few = texts(model, tokens=12, samples=2, seed=random_seed, temperature=1.5)
    assert many[:2] == few
    # Neither does it when the others stop early.
    stopped = texts(model, tokens=12, samples=4, seed=random_seed, temperature=1.5, stop=(b"a",))
    assert stopped == [text.split(b"a")[0] for text in many]


def test_samples_and_seeds_differ():
    model = StandInModel()
    drawn = {text for seed in (0, 1) for text in texts(model, tokens=20, samples=3, seed=seed, temperature=2)}
    assert len(drawn) == 6


@pytest.mark.parametrize("split", [1, 4, 9])
def test_continuing_a_text_equals_writing_it_in_one_go(split):
    model = StandInModel(context=6)
    whole = texts(model, b"ab", tokens=20, temperature=0)[0]
    rest = texts(model, b"ab" + whole[:split], tokens=20 - split, temperature=0)[0]
    assert whole[:split] + rest == whole


def test_sampled_tokens_follow_the_model():
    """Chi-square of 3,000 texts, 24 degrees of freedom: above 51.2 once in a thousand; the seed is fixed."""
    model = StandInModel(scale=0.5)
    prompt = [0, 1, 2]
    drawn = texts(model, tokens=2, samples=3000, temperature=1, seed=5)
    chi_square = 0.0
    for pair in itertools.product(range(5), repeat=2):
        expected = 3000 * np.exp(model.log_probability(prompt, pair))
        observed = drawn.count(bytes(ord("a") + token for token in pair))
        chi_square += (observed - expected) ** 2 / expected
    assert chi_square < 51.2


@given(seeds, st.integers(1, 3))
def test_a_beam_that_keeps_everything_finds_the_likeliest_text(seed, length):
    model = StandInModel(vocabulary=4, seed=seed, context=10)
    every = itertools.product(range(4), repeat=length)
    best = sorted(every, key=lambda tokens: -model.log_probability([0, 1], tokens))[:3]
    found = generate_texts(
        model, ByteTokenizer(4), b"ab", Options(tokens=length, beams=4**length, samples=min(3, 4**length))
    )
    assert found == [bytes(ord("a") + token for token in tokens) for tokens in best]


@given(seeds, st.floats(0, 2))
def test_texts_of_unequal_length_compete_by_their_normalised_score(seed, alpha):
    """Every text of up to 3 tokens that ends at its first "d", scored by hand."""
    model = StandInModel(vocabulary=4, seed=seed, context=10)
    complete = [
        tokens
        for length in (1, 2, 3)
        for tokens in itertools.product(range(4), repeat=length)
        if 3 not in tokens[:-1] and (length == 3 or tokens[-1] == 3)
    ]

    def score(tokens):
        return model.log_probability([0, 1], tokens) / ((5 + len(tokens)) / 6) ** alpha

    best = max(complete, key=score)
    options = Options(tokens=3, beams=64, stop=(b"d",), length_penalty=alpha)
    pieces = list(generate(model, ByteTokenizer(4), b"ab", options))
    assert b"".join(piece.text for piece in pieces) == bytes(97 + token for token in best).rstrip(b"d")
    assert pieces[-1].ended == ("stop" if 3 in best else "length")
    assert pieces[-1].score == pytest.approx(score(best))


def test_a_text_that_ends_counts_among_the_first_beams_only():
    """The first and the third of four candidates end; the third comes too late for two beams."""
    search = BeamSearch(np.empty(0, int), 4, Options(beams=2, samples=2), lambda tokens: tokens[-1] >= 2)
    parents, tokens, _ = search.step(np.array([[2.0, 0.0, 1.0, 3.0]]))
    assert (parents.tolist(), tokens.tolist()) == ([0, 0], [0, 1])
    assert [text.tokens for text in search.finished] == [[3]]


@given(seeds, st.sampled_from([1.0, 1.5]), st.booleans())
def test_one_beam_is_greedy(seed, penalty, cache):
    model = StandInModel(seed=seed)
    options = {"tokens": 20, "repetition_penalty": penalty}
    greedy = texts(model, temperature=0, **options)
    assert texts(model, beams=1, cache=cache, **options) == greedy
    # A reward for length may carry a search past a stop text that greedy takes; without one it does not.
    options["stop"] = (b"dd",)
    greedy = texts(model, temperature=0, **options)
    assert texts(model, beams=1, cache=cache, length_penalty=0.0, **options) == greedy


class Script:
    """A state whose probabilities depend only on the step, for tests by hand."""

    def __init__(self, *probabilities):
        self.steps = [np.log(row) for row in probabilities]

    def start(self):
        self.rows, self.step = 1, 0
        return self.steps[0][None]

    def advance(self, parents, tokens):
        self.rows, self.step = len(parents), self.step + 1
        return np.repeat(self.steps[self.step][None], self.rows, axis=0)


@pytest.mark.parametrize(("alpha", "tokens"), [(1.0, [1, 0]), (0.0, [0])])
def test_a_search_goes_on_while_a_longer_text_can_still_win(alpha, tokens):
    """Token 0 ends a text. Ending at once has log-probability ln 0.5; going on has it too, but is longer."""
    state = Script([0.501, 0.499], [0.999, 0.001], [0.5, 0.5])
    options = Options(tokens=3, beams=2, length_penalty=alpha)
    strategy = BeamSearch(np.array([1]), 2, options, lambda text: text[-1] == 0)
    (found,) = decode(state, strategy, 3)
    assert found.tokens == tokens


def test_a_search_stops_once_nothing_unfinished_can_win():
    model = StandInModel(vocabulary=4, context=400)  # far from the limit of 300 tokens
    list(generate(model, ByteTokenizer(4), b"ab", Options(tokens=300, beams=3, stop=(b"a", b"b"))))
    assert model.positions_read < 100


def test_pieces_arrive_while_the_text_is_written():
    model = StandInModel()
    first = next(generate(model, tokenizer, b"a", Options(tokens=1000)))
    assert len(first.text) == 1
    assert model.positions_read == 1


def test_a_stop_text_may_come_in_several_tokens_and_is_left_out():
    model = StandInModel(seed=3)
    whole = texts(model, tokens=40, temperature=0)[0]
    stop = whole[5:8]
    pieces = list(generate(model, tokenizer, b"abc", Options(tokens=40, temperature=0, stop=(stop,))))
    assert b"".join(piece.text for piece in pieces) == whole[: whole.index(stop)]
    assert [piece.ended for piece in pieces[-2:]] == [None, "stop"]


def test_bytes_that_waited_are_shown_when_the_limit_is_reached():
    model = StandInModel(seed=3)
    whole = texts(model, tokens=40, temperature=0)[0]
    assert texts(model, tokens=40, temperature=0, stop=(whole[-2:] + b"z",)) == [whole]


def test_repetition_penalty_counts_the_prompt_and_the_new_tokens():
    class Flat(StandInModel):
        def __call__(self, ids, *, cache=None, last_only=False):
            result = super().__call__(ids, cache=cache)
            result.array = np.broadcast_to([5.0, 4.0, 3.0, 2.0, 1.0], result.array.shape)
            return result

    # 5 4 3 2 1 with a penalty of 100: each token once, in falling order, then the order repeats.
    assert texts(Flat(), b"a", tokens=5, temperature=0, repetition_penalty=100.0) == [b"bcdea"]


def test_logits_that_are_not_finite_are_an_error():
    model = StandInModel()
    model.head[:] = np.nan
    with pytest.raises(TinyformerError, match="not finite"):
        texts(model)


def test_a_tokenizer_of_another_model_is_an_error():
    with pytest.raises(TinyformerError, match="6 tokens and the model 5"):
        generate_texts(StandInModel(), ByteTokenizer(6), b"a")


def test_an_empty_prompt_begins_a_line_or_at_the_first_token():
    class NoLineBreak(ByteTokenizer):
        def encode(self, text):
            raise TinyformerError("no such character")

    model = StandInModel(vocabulary=5)
    lines = ByteTokenizer(5, first=8)  # byte 10, the line break, is token 2
    assert generate_texts(model, lines, b"", Options(temperature=0, tokens=5)) == generate_texts(
        model, lines, b"\n", Options(temperature=0, tokens=5)
    )
    assert generate_texts(model, NoLineBreak(), b"", Options(temperature=0, tokens=5)) == texts(
        model, b"a", temperature=0, tokens=5
    )


def test_sample_text_is_the_first_sample():
    model = StandInModel()
    assert sample_text(model, tokenizer, b"ab", 9, seed=4) == texts(model, b"ab", tokens=9, seed=4)[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": 0}, "tokens must be at least 1"),
        ({"top_k": 0}, "top k must be at least 1"),
        ({"samples": -1}, "samples must be at least 1"),
        ({"beams": 0}, "beams must be at least 1"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top p"),
        ({"top_p": 1.1}, "top p"),
        ({"repetition_penalty": 0.0}, "repetition penalty"),
        ({"length_penalty": -0.1}, "length penalty"),
        ({"seed": -1}, "seed"),
        ({"stop": (b"",)}, "stop text"),
        ({"beams": 2, "top_k": 3}, "beam search does not sample"),
        ({"beams": 2, "samples": 3}, "2 beams cannot give 3 texts"),
        ({"temperature": 0.0, "samples": 2}, "same text 2 times"),
    ],
)
def test_options_out_of_range_say_what_to_do(options, message):
    with pytest.raises(UsageError, match=message):
        Options(**options)


@given(seeds, st.integers(1, 12))
def test_largest_sorts_like_a_full_sort(seed, count):
    values = np.random.default_rng(seed).integers(0, 5, size=9).astype(float)
    expected = sorted(range(9), key=lambda index: (-values[index], index))[:count]
    assert largest(values, count).tolist() == expected


def test_the_smallest_temperatures_are_greedy():
    model = StandInModel()
    assert texts(model, temperature=1e-320, tokens=9) == texts(model, temperature=0, tokens=9)


def test_one_loop_serves_any_state():
    """A state that is no decoder: what an encoder-decoder would hand in."""

    class Countdown:
        def start(self):
            self.rows = np.array([3])
            return self._logits()

        def advance(self, parents, tokens):
            self.rows = self.rows[parents] - 1
            return self._logits()

        def _logits(self):
            return np.where(np.arange(5) == self.rows[:, None], 9.0, 0.0)

    for strategy in (Sampler, BeamSearch):
        options = Options(temperature=0, beams=1 if strategy is BeamSearch else None)
        settled = decode(Countdown(), strategy(np.array([0]), 5, options, lambda tokens: tokens[-1] == 0), 20)
        assert [token for part in settled for token in part.tokens] == [3, 2, 1, 0]


def test_rows_are_reordered_with_their_keys_and_values():
    model = StandInModel()
    ids = np.array([0, 1])
    cached, plain = DecoderState(model, ids), DecoderState(model, ids, cached=False)
    moves = [([0, 0, 0], [1, 2, 3]), ([2, 0, 2], [0, 4, 4]), ([1, 0], [2, 2]), ([0, 1], [3, 3])]
    np.testing.assert_array_equal(cached.start(), plain.start())
    for parents, tokens in moves:
        a = cached.advance(np.array(parents), np.array(tokens))
        b = plain.advance(np.array(parents), np.array(tokens))
        np.testing.assert_allclose(a, b, rtol=1e-12)
