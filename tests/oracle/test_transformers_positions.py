"""Relative positions against transformers' T5, bucket by bucket."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.t5.modeling_t5 import T5Attention

from tinyformer import backends, nn

pytestmark = pytest.mark.oracle


@given(
    buckets=st.integers(4, 64).map(lambda n: 2 * n),
    max_distance=st.integers(65, 500),
    bidirectional=st.booleans(),
)
def test_buckets(buckets, max_distance, bidirectional):
    distance = np.arange(-600, 600)
    expected = T5Attention._relative_position_bucket(
        torch.tensor(distance), bidirectional=bidirectional, num_buckets=buckets, max_distance=max_distance
    )
    found = nn.relative_buckets(
        backends.get("numpy"), distance, buckets=buckets, max_distance=max_distance, bidirectional=bidirectional
    )
    np.testing.assert_array_equal(found, expected.numpy())
