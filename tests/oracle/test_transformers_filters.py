"""The filters and the repetition penalty beside those of transformers."""

import numpy as np
import pytest
import torch
import transformers

from tinyformer.generation.filters import keep_top_k, keep_top_p, penalise_repetition

pytestmark = pytest.mark.oracle


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(50, 30)).astype(np.float32) * 3


@pytest.mark.parametrize("k", [1, 5, 29, 30])
def test_top_k(rows, k):
    theirs = transformers.TopKLogitsWarper(k)(None, torch.tensor(rows)).numpy()
    np.testing.assert_array_equal(keep_top_k(rows, k), theirs)


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9, 0.999])
def test_top_p(rows, p):
    theirs = transformers.TopPLogitsWarper(p)(None, torch.tensor(rows)).numpy()
    np.testing.assert_array_equal(keep_top_p(rows, p), theirs)


@pytest.mark.parametrize("penalty", [0.7, 1.0, 1.3])
def test_repetition_penalty(rows, penalty):
    ids = np.random.default_rng(1).integers(0, 30, (50, 12))
    seen = np.zeros(rows.shape, dtype=bool)
    np.put_along_axis(seen, ids, True, axis=1)
    processor = transformers.RepetitionPenaltyLogitsProcessor(penalty)
    theirs = processor(torch.tensor(ids), torch.tensor(rows)).numpy()
    np.testing.assert_allclose(penalise_repetition(rows, seen, penalty), theirs, rtol=1e-6)
