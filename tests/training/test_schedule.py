"""Learning rates against the tables that transformers' own tests print."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyformer.errors import UsageError
from tinyformer.training.config import SCHEDULES
from tinyformer.training.schedule import learning_rate

TABLES = {
    "linear": [0, 5, 10, 8.75, 7.5, 6.25, 5, 3.75, 2.5, 1.25],
    "cosine": [0, 5, 10, 9.61, 8.53, 6.91, 5, 3.08, 1.46, 0.38],
    "constant": [0, 5, 10, 10, 10, 10, 10, 10, 10, 10],
    "inverse-square-root": [0, 5, *(10 * math.sqrt(2 / step) for step in range(2, 10))],
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rates_equal_the_published_tables(schedule):
    rates = [learning_rate(step, peak=10, steps=10, warmup=2, schedule=schedule) for step in range(10)]
    assert rates == pytest.approx(TABLES[schedule], abs=0.01)  # the tables cut digits off, unrounded


@given(st.sampled_from(SCHEDULES), st.integers(1, 1000), st.integers(0, 1000), st.floats(0, 1), st.floats(1e-6, 1))
def test_a_rate_stays_between_its_end_and_its_peak(schedule, steps, warmup, ratio, peak):
    warmup = min(warmup, steps)
    options = {"peak": peak, "steps": steps + 1, "warmup": warmup, "schedule": schedule, "minimum_ratio": ratio}
    rates = [learning_rate(step, **options) for step in range(1, steps + 1)]
    assert all(0 < rate <= peak * (1 + 1e-12) for rate in rates)
    assert rates[: warmup - 1] == sorted(rates[: warmup - 1])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    if warmup:
        assert rates[warmup - 1] == pytest.approx(peak)
    if schedule in ("cosine", "linear"):
        assert learning_rate(steps + 1, **options) == pytest.approx(peak * ratio)
        assert learning_rate(5 * steps + 1, **options) == pytest.approx(peak * ratio)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_way_down_goes_to_the_minimum_as_a_whole(schedule):
    options = {"peak": 10, "steps": 10, "schedule": schedule, "minimum_ratio": 0.2}
    assert learning_rate(5, **options) == pytest.approx(6)  # halfway between 10 and 2


def test_an_unknown_schedule_is_named():
    with pytest.raises(UsageError, match="unknown schedule 'square'"):
        learning_rate(3, peak=1, steps=10, schedule="square")
