"""Likelihoods of answers, read in batches behind a shared beginning, equal those of each text read by itself."""

import numpy as np
import pytest
from asking import decoder, log_probability
from hypothesis import given
from hypothesis import strategies as st

from tinyformer.errors import TinyformerError
from tinyformer.prompting import Question, likelihood, log_likelihoods


@pytest.mark.parametrize("positions", ["rotary", "learned", "sinusoidal", "none"])
@given(seed=st.integers(0, 2**32), shared=st.integers(0, 12), rows=st.sampled_from([1, 16, 4096]))
def test_likelihoods_equal_a_plain_loop(positions, seed, shared, rows):
    model, random = decoder(7, positions=positions), np.random.default_rng(seed)
    begin = random.integers(0, 7, shared)
    questions = [
        Question(
            np.concatenate([begin, random.integers(0, 7, random.integers(1, 6))]),
            [random.integers(0, 7, random.integers(1, 5)) for _ in range(random.integers(1, 5))],
        )
        for _ in range(random.integers(1, 5))
    ]
    shares = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood, "TOKENS_AT_ONCE", rows)
        found = log_likelihoods(model, questions, done=shares.append)
    for question, totals in zip(questions, found):
        expected = [log_probability(model, question.prompt, answer) for answer in question.answers]
        np.testing.assert_allclose(totals, expected, rtol=1e-9)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_likelihoods_are_the_same_on_every_backend(xp):
    random = np.random.default_rng(0)
    begin = random.integers(0, 7, 5)
    questions = [
        Question(np.append(begin, random.integers(0, 7, n)), [random.integers(0, 7, m) for m in (1, 3, 2)])
        for n in (1, 3, 2)
    ]
    model = decoder(9, dtype="float32")
    expected = log_likelihoods(model, questions, vocabulary=7)
    for parameter in model.parameters().values():
        parameter.array = xp.from_host(parameter.numpy())
    np.testing.assert_allclose(log_likelihoods(model, questions, vocabulary=7), expected, rtol=1e-3, atol=1e-3)


def test_a_question_may_fill_the_context():
    model = decoder(7, context=8)
    question = Question(np.arange(6), [np.array([1, 2, 3]), np.array([6])])
    assert question.length == 8
    expected = [log_probability(model, question.prompt, answer[:]) for answer in question.answers]
    np.testing.assert_allclose(log_likelihoods(model, [question])[0], expected, rtol=1e-9)


def test_ids_without_a_meaning_have_no_probability():
    model = decoder(9)
    everything = Question(np.array([1]), [np.array([token]) for token in range(7)])
    assert np.exp(log_likelihoods(model, [everything], vocabulary=7)[0]).sum() == pytest.approx(1)
    assert np.exp(log_likelihoods(model, [everything])[0]).sum() < 0.999


def test_what_is_shared_is_read_once_and_answers_of_one_token_share_a_row():
    model, read = decoder(7), []

    class Counting:
        config, new_cache = model.config, staticmethod(model.new_cache)

        def __call__(self, ids, **more):
            read.append(ids.shape)
            return model(ids, **more)

    shots = np.arange(20) % 7
    questions = [Question(np.append(shots, token), [np.array([answer]) for answer in range(7)]) for token in range(5)]
    log_likelihoods(Counting(), questions)
    assert read == [(1, 20), (5, 1)]


def test_weights_that_are_not_finite_are_told():
    model = decoder(7)
    next(iter(model.parameters().values())).array[:] = np.nan
    with pytest.raises(TinyformerError, match="not finite"):
        log_likelihoods(model, [Question(np.array([1]), [np.array([2])])])
