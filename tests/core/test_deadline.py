import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchy.core.deadline import Deadline, RoundTrips


def test_age_and_way_back_are_taken_off():
    deadline = Deadline.of(now=100.0, budget_ms=1000.0, age_s=0.2, way_back_s=0.01)
    assert deadline.expires == pytest.approx(100.8)
    assert deadline.answer_by == pytest.approx(100.79)


def test_a_clock_that_runs_behind_makes_no_request_younger():
    assert Deadline.of(0.0, 1000.0, age_s=-5.0, way_back_s=0.0).expires == pytest.approx(1.0)


def test_a_budget_that_is_spent_has_expired():
    assert Deadline.of(5.0, 100.0, age_s=0.2, way_back_s=0.01).expires < 5.0


@given(st.floats(0, 30_000), st.floats(-10, 40), st.floats(0, 10))
def test_an_answer_never_leaves_after_the_requester_has_gone(budget_ms, age_s, way_back_s):
    deadline = Deadline.of(0.0, budget_ms, age_s, way_back_s)
    assert deadline.answer_by <= deadline.expires
    if deadline.expires > 0:
        assert deadline.answer_by >= deadline.expires / 2 - 1e-9


def test_round_trips_say_nothing_before_there_are_enough():
    trips = RoundTrips(minimum=5)
    for _ in range(4):
        trips.observe(1.0)
    assert trips.quantile(0.5) is None
    trips.observe(1.0)
    assert trips.quantile(0.5) == 1.0


def test_round_trips_forget_what_is_old():
    trips = RoundTrips(keep=10)
    for seconds in [9.0] * 10 + [1.0] * 10:
        trips.observe(seconds)
    assert trips.quantile(0.95) == 1.0


@given(st.lists(st.floats(0, 100), min_size=5, max_size=40), st.floats(0, 1), st.integers(5, 20))
def test_a_quantile_is_one_of_the_last_values_with_that_share_at_or_below(values, q, keep):
    trips = RoundTrips(keep)
    for value in values:
        trips.observe(value)
    found, last = trips.quantile(q), values[-keep:]
    assert found in last
    assert sum(v <= found for v in last) >= q * len(last)
    assert sum(v < found for v in last) <= q * len(last)
