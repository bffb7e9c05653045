"""Pairs of texts: closed, padded, one place apart; exact rows; smoothing in the loss alone."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.objectives.made import END, PAD, V, make, text
from tinyformer import Tensor, no_grad
from tinyformer.objectives import Batch, Seq2Seq

PAIRS = Seq2Seq(end=END, pad=PAD)


def row(*ids):
    return np.array(ids, np.int32)


def test_pairs_are_closed_and_padded():
    batch = PAIRS.corrupt([(row(1, 2, 3), row(4)), (row(5), row(6, 7))])
    np.testing.assert_array_equal(batch.inputs, [[1, 2, 3, END], [5, END, PAD, PAD]])
    np.testing.assert_array_equal(batch.mask, [[True] * 4, [True, True, False, False]])
    np.testing.assert_array_equal(batch.targets, [[4, END, PAD], [6, 7, END]])
    np.testing.assert_array_equal(batch.weights, [[1, 1, 0], [1, 1, 1]])
    np.testing.assert_array_equal(batch.decoder_inputs, [[PAD, 4, END], [PAD, 6, 7]])
    assert batch.tokens == 5
    assert len(batch) == 2


def test_pairs_of_one_length_need_no_mask():
    batch = PAIRS.corrupt([(row(1, 2), row(4)), (row(5, 6), row(7))])
    assert batch.mask is batch.weights is None


@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_padding_changes_nothing(seed, count):
    rng = np.random.default_rng(seed)
    pairs = [(text(rng, rng.integers(1, 10)), text(rng, rng.integers(1, 10))) for _ in range(count)]
    model = make("encoder-decoder")
    together = PAIRS.score(model, PAIRS.corrupt(pairs))
    alone = [PAIRS.score(model, PAIRS.corrupt([pair])) for pair in pairs]
    assert together == pytest.approx({key: sum(score[key] for score in alone) for key in together}, rel=1e-12)


def test_exact_rows_are_those_that_greedy_decoding_writes():
    """Each token in turn is the end; where it is written within four tokens, what is before it is the target."""
    rng, model, exact = np.random.default_rng(0), make("encoder-decoder"), []
    for end in range(V):
        sources, written = np.stack([text(rng, 5) for _ in range(4)]), np.full((4, 1), PAD)
        closed = np.concatenate([sources, np.full((4, 1), end)], axis=1)
        with no_grad():
            for _ in range(4):
                last = model(closed, written).numpy()[:, -1]
                written = np.concatenate([written, last.argmax(axis=1)[:, None]], axis=1)
        targets = [(*line, end)[: (*line, end).index(end)] for line in written[:, 1:].tolist()]
        objective = Seq2Seq(end=end, pad=PAD)
        batch = objective.corrupt([(source, row(*target[:3])) for source, target in zip(sources, targets)])
        exact.append(sum(len(target) < 4 for target in targets))
        assert objective.score(model, batch)["exact"] == exact[-1]
    assert len(set(exact)) > 2


def test_exact_rows_need_every_target_and_no_padding():
    targets = np.array([[1, 2, END], [3, END, PAD], [4, 5, END], [END, PAD, PAD]])

    class Known:
        """A model that writes a wrong token three times, twice where there is padding."""

        config = SimpleNamespace(mode="encoder-decoder")

        def __call__(self, source, target, rng=None):
            said = targets.copy()
            said[1, 2], said[2, 1], said[3, 1] = 9, 8, 7
            return Tensor(np.eye(V)[said] * 5)

    batch = Batch(targets, targets, (targets != PAD).astype(np.float32), decoder_inputs=targets)
    score = PAIRS.score(Known(), batch)
    assert (score["sequences"], score["exact"]) == (4, 3)
    assert (score["tokens"], score["correct"]) == (9, 8)


def test_smoothing_is_of_the_loss_alone():
    rng, model = np.random.default_rng(0), make("encoder-decoder")
    batch = PAIRS.corrupt([(text(rng, 4), text(rng, n)) for n in (2, 5)])
    smooth = Seq2Seq(end=END, pad=PAD, smoothing=0.1)
    assert smooth.score(model, batch) == PAIRS.score(model, batch)
    assert smooth.loss(model, batch).item() != pytest.approx(PAIRS.loss(model, batch).item(), rel=1e-3)
