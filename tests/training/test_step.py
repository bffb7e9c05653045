"""A step: cut into pieces it is the same step, and what is not finite changes nothing."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyformer import models
from tinyformer.objectives import Batch, CausalLM
from tinyformer.tensor import Tensor
from tinyformer.training.optimizer import AdamW, FlatParameters
from tinyformer.training.step import Workers, accumulate_gradient, score, split, training_step


def tiny(dtype="float64", dropout=0.0, seed=0):
    config = models.ModelConfig(vocabulary=11, context=6, layers=1, heads=2, width=8, hidden=16, dropout=dropout)
    model = models.build(config, dtype=dtype, seed=seed)
    return model, FlatParameters(model.parameters())


def batch(rows, seed=0, ragged=True):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 11, (rows, 7))
    weights = (rng.random((rows, 6)) < 0.6).astype(np.float64) if ragged else None
    if ragged:
        weights[0, 0] = 1
    return Batch(tokens[:, :-1], tokens[:, 1:], weights)


@settings(deadline=None, max_examples=25)
@given(*map(st.integers, (1, 1, 1), (9, 5, 4)), st.booleans(), st.integers(0, 99), st.sampled_from([0.0, 0.3]))
def test_pieces_equal_the_whole_batch(rows, micros, threads, ragged, seed, dropout):
    model, flat = tiny(dropout=dropout)
    one = batch(rows, seed, ragged)
    options = {"seed": 0, "step": 1}
    with Workers(1) as alone, Workers(threads) as several:
        whole = accumulate_gradient(model, CausalLM(), flat, one, micros=1, workers=alone, **options)
        expected = flat.gradients.copy()
        flat.gradients[...] = np.nan
        pieces = accumulate_gradient(model, CausalLM(), flat, one, micros=micros, workers=several, **options)
    assert pieces == pytest.approx(whole, rel=1e-12)
    np.testing.assert_allclose(flat.gradients, expected, rtol=0, atol=1e-12)


def test_the_gradient_is_that_of_the_loss():
    model, flat = tiny()
    one = batch(4)
    with Workers(2) as workers:
        accumulate_gradient(model, CausalLM(), flat, one, micros=2, seed=0, step=1, workers=workers)
        direction = np.random.default_rng(1).standard_normal(flat.values.size)
        start, losses = flat.values.copy(), []
        for sign in (1, -1):
            flat.values[...] = start + sign * 1e-5 * direction
            sums = score(model, CausalLM(), [one], workers)
            losses.append(sums["nats"] / sums["tokens"])
    assert flat.gradients @ direction == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-6)


def test_scores_are_sums_over_all_batches_and_parts():
    model, _ = tiny()
    batches = [batch(3, 1), batch(5, 2), batch(1, 3)]
    joined = Batch(*(np.concatenate([getattr(b, f) for b in batches]) for f in ("inputs", "targets", "weights")))
    with Workers(2) as workers:
        sums = score(model, CausalLM(), batches, workers)
    assert sums["tokens"] == joined.tokens
    assert sums["nats"] / sums["tokens"] == pytest.approx(CausalLM().loss(model, joined).item(), rel=1e-12)


@pytest.mark.parametrize("threads", [1, 2])
def test_scoring_records_no_graph_in_any_thread(threads):
    recorded = []

    class Watched(CausalLM):
        def predict(self, model, batch, **options):
            prediction = super().predict(model, batch, **options)
            recorded.append(prediction.logits.node is not None)
            return prediction

    with Workers(threads) as workers:
        score(tiny()[0], Watched(), [batch(4)], workers)
    assert recorded == [False] * threads


def test_threads_give_the_same_bits_every_time():
    results = []
    for _ in range(3):
        model, flat = tiny("float32", dropout=0.3)
        optimizer = AdamW.of(flat)
        with Workers(3) as workers:
            for step in range(1, 6):
                training_step(
                    model, CausalLM(), flat, optimizer, batch(7, step), micros=2,
                    learning_rate=0.01, clip=1.0, seed=5, step=step, workers=workers,
                )  # fmt: skip
        results.append(flat.values.copy())
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_dropout_depends_on_seed_and_step():
    model, flat = tiny(dropout=0.5)
    with Workers(1) as workers:
        losses = [
            accumulate_gradient(model, CausalLM(), flat, batch(4), micros=1, seed=seed, step=step, workers=workers)
            for seed, step in [(0, 1), (0, 1), (0, 2), (1, 1)]
        ]
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


class Poisoned(CausalLM):
    """An objective whose loss or gradient is not finite."""

    def __init__(self, factor):
        self.factor = factor

    def loss(self, model, batch, **options):
        return super().loss(model, batch, **options) * Tensor(np.array(self.factor))


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value")
@pytest.mark.parametrize("factor", [np.nan, np.inf, 1e200])  # with the last one only the gradient's square is not
@pytest.mark.parametrize("threads", [1, 2])
def test_a_step_that_is_not_finite_changes_nothing(factor, threads):
    model, flat = tiny()
    optimizer = AdamW.of(flat)
    options = {"learning_rate": 0.1, "clip": 1.0, "micros": 2}
    with Workers(threads) as workers:
        good = training_step(model, CausalLM(), flat, optimizer, batch(4), step=1, workers=workers, **options)
        assert good.updated
        before = flat.values.copy(), optimizer.first.copy(), optimizer.second.copy()
        bad = training_step(model, Poisoned(factor), flat, optimizer, batch(4), step=2, workers=workers, **options)
    assert not bad.updated
    for now, then in zip((flat.values, optimizer.first, optimizer.second), before):
        np.testing.assert_array_equal(now, then)


def test_split_covers_every_row_once():
    rows = [split(batch(7), parts) for parts in (1, 2, 3, 7, 20)]
    for parts in rows:
        np.testing.assert_array_equal(np.concatenate([part.inputs for part in parts]), batch(7).inputs)
        assert all(len(part.inputs) for part in parts)
    assert [len(part.inputs) for part in rows[2]] == [2, 2, 3]


def test_an_error_in_a_worker_reaches_the_caller_and_threads_end():
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), Workers(2) as workers:
        workers.map(lambda n: 1 // n, [1, 0])
    assert threading.active_count() == before
