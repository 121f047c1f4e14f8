from __future__ import annotations

import pytest
from tier_world import TIERS, request

from branchy.core.deadline import Deadline
from branchy.core.jobs import NOTHING, Job
from branchy.core.tier_events import Came
from branchy.core.way_up import LATE_KEPT, WayUp


def go_up(way: WayUp, number: int = 0, now: float = 0.0) -> Job:
    made = Job(
        Came(number, request(TIERS["first"], number), "device", b"c"), Deadline(now + 1.0, now + 0.99), NOTHING, now
    )
    ticket = way.admit(1.0, now)
    assert ticket is not None
    way.begin(made, ticket, now)
    return made


def new_way(limit: int = 4) -> WayUp:
    return WayUp(window_s=10.0, probe_s=2.0, limit=limit, prefix=b"me")


def test_each_forward_has_a_correlation_of_its_own():
    way = new_way(100)
    ups = [go_up(way, n).up for n in range(50)]
    assert len(set(ups)) == 50
    assert all(up.startswith(b"me") for up in ups)
    assert [way.job(up).token for up in ups] == list(range(50))


def test_it_is_full_at_its_limit():
    way = new_way(2)
    first = go_up(way)
    assert not way.full
    go_up(way, 1)
    assert way.full
    way.end(first)
    assert not way.full


def test_without_time_nothing_goes_up():
    assert new_way().admit(0.0, now=0.0) is None


def test_below_a_typical_round_trip_one_goes_up_a_probe_interval():
    way = new_way(100)
    for number in range(5):
        way.answered(go_up(way, number, now=0.0), now=0.5)
    assert way.admit(0.4, now=1.0) is not None
    assert way.admit(0.4, now=1.1) is None
    assert way.admit(0.6, now=1.1) is not None
    assert way.admit(0.4, now=3.0) is not None


def test_a_probe_that_is_answered_in_time_ends_a_bad_spell():
    way = new_way(100)
    for late in [go_up(way, number) for number in range(30)]:
        way.end(late)
        way.answered_late(late.up, now=3.0)
    probe = go_up(way, 30, now=4.0)
    assert way.admit(1.0, now=4.0) is None
    way.answered(probe, now=4.1)
    assert way.admit(1.0, now=4.1) is not None
    assert way.admit(1.0, now=4.1) is not None


def test_answers_in_time_that_the_estimate_allows_for_leave_it_as_it_is():
    way = new_way(100)
    for seconds in (0.1, 0.9, 0.9, 0.9, 0.9, 0.1):
        way.answered(go_up(way), now=seconds)
    assert way.round_trips.quantile(0.5) == pytest.approx(0.9)


def test_a_late_answer_teaches_once():
    way = new_way()
    for number in range(5):
        one = go_up(way, number)
        way.end(one)
        assert way.answered_late(one.up, now=3.0)
        assert not way.answered_late(one.up, now=9.0)
    assert way.round_trips.quantile(0.5) == pytest.approx(3.0)


def test_what_was_given_up_is_remembered_within_bounds():
    way = new_way(10)
    first = go_up(way)
    way.end(first)
    for number in range(LATE_KEPT):
        way.end(go_up(way, number))
    assert not way.answered_late(first.up, now=1.0)


def test_failures_count_however_little_time_they_had_once_the_front_has_been_silent_for_a_window():
    """Else the estimate of a slow spell would hold the breaker closed for as long as the front stays dead."""
    way = new_way(1000)
    for number, took_s in enumerate([0.3] * 18 + [1.5] * 2):
        job = go_up(way, number)
        way.answered(job, took_s)
        way.end(job)
    assert not go_up(way, 20, now=2.0).ticket.counts
    for number in range(21, 41):
        job = go_up(way, number, now=11.6 + number * 0.01)
        assert job.ticket.counts
        way.failed(job, job.deadline.answer_by)
        way.end(job)
    assert way.breaker.state == "open"
