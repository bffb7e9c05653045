"""Causal language modelling: what the batch holds, and that pieces of a batch add up to it."""

import numpy as np
import pytest

from tinyformer import backward
from tinyformer.models import ModelConfig, build
from tinyformer.objectives import Batch, CausalLM


def test_targets_are_the_next_tokens():
    batch = CausalLM().corrupt(np.arange(10).reshape(2, 5))
    np.testing.assert_array_equal(batch.inputs, [[0, 1, 2, 3], [5, 6, 7, 8]])
    np.testing.assert_array_equal(batch.targets, [[1, 2, 3, 4], [6, 7, 8, 9]])
    assert batch.tokens == 8


def test_pieces_add_up_also_when_they_are_ragged():
    rng = np.random.default_rng(0)
    model = build(ModelConfig(vocabulary=7, context=4, layers=1, heads=1, width=4, hidden=8), dtype="float64")
    weights = np.array([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]])
    whole = Batch(rng.integers(0, 7, (3, 4)), rng.integers(0, 7, (3, 4)), weights)
    assert whole.tokens == 7
    objective = CausalLM()
    loss = objective.loss(model, whole)
    gradients = backward(loss)
    parts = [objective.loss(model, whole.rows(i, i + 1), whole=whole) for i in range(3)]
    assert sum(part.item() for part in parts) == pytest.approx(loss.item(), rel=1e-13)
    pieces = [backward(part) for part in parts]
    for parameter, gradient in gradients.items():
        np.testing.assert_allclose(sum(piece[parameter] for piece in pieces), gradient, atol=1e-15)
