"""When the demo kills the cloud, what it counts while it is dead, and when it has seen enough."""

from collections import Counter
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchy.core.messages import Reason
from branchy.reports.csv import Row
from branchy.runner.outage import Outage, is_in_vain


def row(tier="edge", reason="confident"):
    return Row(test=0, expected=1, latency_s=0.01, request="r", tier=tier, reason=reason)


SURE, FINAL, TIMED_OUT = row(), row("cloud", "final"), row("fog", "timeout")
UNANSWERED = row(None, None)


def outage(**kwargs):
    return Outage("cloud", **{"kill_after": 2, "enough_wanted": 3, "enough_back": 2, **kwargs})


def test_the_whole_pass_in_order():
    rows = [SURE, FINAL, TIMED_OUT, SURE, TIMED_OUT, TIMED_OUT, SURE, FINAL, FINAL]
    play = outage()
    assert [play.take(r) for r in rows] == [None, "kill", None, None, None, "restart", None, None, "finish"]
    assert play.is_over
    assert play.progress == play.goal == 7
    assert play.take(TIMED_OUT) is None


def test_what_failed_before_the_kill_is_not_counted():
    play = outage()
    play.take(TIMED_OUT)
    assert play.wanted == []


@pytest.mark.parametrize("reason", sorted(set(get_args(Reason)) - {"confident", "final"}))
def test_every_reason_but_sure_and_final_is_in_vain(reason):
    assert is_in_vain(row(reason=reason))


def test_an_unanswered_request_wanted_the_cloud_but_was_answered_by_nobody():
    play = outage(kill_after=1)
    for r in (SURE, UNANSWERED, TIMED_OUT):
        play.take(r)
    assert play.wanted == [UNANSWERED, TIMED_OUT]
    assert play.answered_by() == {("fog", "timeout"): 1}


def test_answers_of_the_cloud_that_were_on_their_way_do_not_count_as_back():
    play = outage(kill_after=1, enough_wanted=1, enough_back=1)
    assert [play.take(r) for r in (SURE, FINAL, TIMED_OUT)] == ["kill", None, "restart"]
    assert play.answers_back == 0


def test_final_answers_of_another_tier_do_not_bring_the_cloud_back():
    play = outage(kill_after=1, enough_wanted=1, enough_back=1)
    steps = [play.take(r) for r in (SURE, TIMED_OUT, row("full", "final"), FINAL)]
    assert steps == ["kill", "restart", None, "finish"]


@given(
    st.lists(st.sampled_from([SURE, FINAL, TIMED_OUT, UNANSWERED, row("fog", "unreachable")])),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(1, 5),
)
def test_each_step_comes_once_in_order_and_only_when_due(rows, kill_after, enough_wanted, enough_back):
    play = outage(kill_after=kill_after, enough_wanted=enough_wanted, enough_back=enough_back)
    taken = [play.take(r) for r in rows]
    steps = [s for s in taken if s]
    assert (play.progress == play.goal) == play.is_over
    assert steps == ["kill", "restart", "finish"][: len(steps)]
    if steps:
        killed = taken.index("kill")
        assert killed == kill_after - 1
        vain = [r for r in rows[killed + 1 :] if is_in_vain(r)]
        assert play.wanted == vain
        assert ("restart" in steps) == (len(vain) >= enough_wanted)
        assert play.answered_by() == Counter((r.tier, r.reason) for r in vain if r.tier)
