"""The offset between two clocks, from round trips."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchy.transport.kafka.clock import SAMPLES, ClockOffset

OFFSETS = st.floats(-10_000, 10_000)
TRIPS = st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2)), min_size=1, max_size=3 * SAMPLES)


@given(OFFSETS, TRIPS)
def test_the_estimate_is_off_by_at_most_half_the_shortest_recent_round_trip(offset_s: float, trips):
    clock, now_s = ClockOffset(), 1_000_000.0
    for there_s, back_s in trips:
        clock.observe(now_s, now_s + there_s + back_s, now_s + there_s + offset_s)
        now_s += 10.0
    shortest_s = min(there_s + back_s for there_s, back_s in trips[-SAMPLES:])
    age_s = clock.age_s(appended_s=now_s + offset_s - 5_000, now_s=now_s)
    assert age_s == pytest.approx(5_000, abs=shortest_s / 2 + 1e-6)


def test_without_a_round_trip_nothing_has_an_age():
    assert ClockOffset().age_s(appended_s=0.0, now_s=1e9) == 0.0


def test_an_age_is_never_negative():
    clock = ClockOffset()
    clock.observe(100.0, 100.2, 100.1)
    assert clock.age_s(appended_s=200.0, now_s=150.0) == 0.0


def test_old_round_trips_are_forgotten_so_that_a_drifting_clock_is_followed():
    clock = ClockOffset()
    clock.observe(0.0, 0.001, 50.0)
    for second in range(SAMPLES):
        clock.observe(second, second + 0.1, second + 0.05 + 60.0)
    assert clock.age_s(appended_s=1060.0, now_s=1010.0) == pytest.approx(10.0)


@pytest.mark.parametrize("by_s", [-3600.0, -1.0, 1.0, 3600.0])
def test_a_broker_whose_clock_is_set_is_followed_at_once(by_s: float):
    """Else a tier would refuse what comes as expired, or answer it late, until it had sent so many answers more."""
    clock = ClockOffset()
    for second in range(SAMPLES):
        clock.observe(second, second + 0.001, second + 50.0)
    clock.observe(100.0, 100.3, 150.1 + by_s)
    assert clock.age_s(appended_s=140.0 + by_s, now_s=100.0) == pytest.approx(10.0, abs=0.15)


def test_a_slow_round_trip_is_no_other_clock():
    clock = ClockOffset()
    clock.observe(0.0, 0.001, 50.0)
    clock.observe(10.0, 14.0, 60.0)
    assert clock.age_s(appended_s=60.0, now_s=20.0) == pytest.approx(10.0, abs=0.001)
