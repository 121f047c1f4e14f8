"""What becomes of sends that no broker has acknowledged yet."""

from __future__ import annotations

from dataclasses import replace

import pytest

from branchy.core import tier_events as ev
from branchy.core.messages import Answer
from branchy.core.outbox import KEPT_S, Outbox

DEAD = ev.DeadLetter("t", "headers", "what was wrong", body_bytes=100)
ANSWER = ev.SendAnswer("t", "me", None, Answer("1", "ok", "final", "edge", "m"), None)


def failed(*, permanent: bool, too_large: bool = False) -> ev.SendFailed:
    return ev.SendFailed("t", permanent, "a reason", too_large)


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


@pytest.mark.parametrize("effect", [ANSWER, DEAD], ids=["answer", "dead letter"])
def test_what_is_acknowledged_is_settled_once_and_holds_nothing_more(outbox: Outbox, effect: ev.SendAnswer):
    outbox.put("t", effect)
    assert outbox.holds("t")
    assert outbox.acknowledged("t") == [ev.Settle("t")]
    assert outbox.acknowledged("t") == []
    assert (len(outbox), outbox.body_bytes, outbox.due) == (0, 0, None)


@pytest.mark.parametrize("effect", [ANSWER, DEAD], ids=["answer", "dead letter"])
def test_what_may_still_arrive_is_sent_again_at_once(outbox: Outbox, effect: ev.SendAnswer):
    outbox.put("t", effect)
    assert outbox.failed(failed(permanent=False), 0.0) == [effect]
    assert outbox.holds("t")


def test_an_answer_that_cannot_arrive_is_settled_and_a_report_of_nothing_is_nothing(outbox: Outbox):
    assert outbox.failed(failed(permanent=True), 0.0) == []
    outbox.put("t", ANSWER)
    assert outbox.failed(failed(permanent=True), 0.0) == [ev.Settle("t")]
    assert not outbox.holds("t")


def test_an_answer_that_nobody_can_wait_for_any_more_is_settled_and_a_dead_letter_always_sent_again(outbox: Outbox):
    answer = replace(ANSWER, wanted_until=7.0)
    outbox.put("t", answer)
    assert outbox.failed(failed(permanent=False), 6.9) == [answer]
    assert outbox.failed(failed(permanent=False), 7.0) == [ev.Settle("t")]
    assert not outbox.holds("t")
    outbox.put("t", DEAD)
    assert outbox.failed(failed(permanent=False), 1e9) == [DEAD]


def test_a_dead_letter_that_cannot_be_written_is_kept_and_tried_again_when_it_is_due(outbox: Outbox):
    outbox.put("t", DEAD)
    assert outbox.failed(failed(permanent=True), 7.0) == []
    assert outbox.due == 7.0 + KEPT_S
    assert outbox.again(outbox.due - 0.1) == []
    assert outbox.again(outbox.due) == [DEAD]
    assert outbox.due is None
    assert (outbox.holds("t"), outbox.body_bytes) == (True, 100)


def test_one_that_is_too_large_goes_once_more_without_the_message_and_is_then_kept(outbox: Outbox):
    outbox.put("t", DEAD)
    (bare,) = outbox.failed(failed(permanent=True, too_large=True), 0.0)
    assert isinstance(bare, ev.DeadLetter)
    assert bare.bare
    assert outbox.failed(failed(permanent=True, too_large=True), 0.0) == []
    assert outbox.again(KEPT_S) == [bare]
    assert outbox.acknowledged("t") == [ev.Settle("t")]
    assert outbox.body_bytes == 0


@pytest.mark.parametrize(("kept", "lost", "held"), [(False, False, True), (True, False, False), (False, True, False)])
def test_with_its_partition_goes_what_is_kept_and_all_of_a_partition_that_is_lost(
    outbox: Outbox, kept: bool, lost: bool, held: bool
):
    outbox.put("t", DEAD)
    if kept:
        outbox.failed(failed(permanent=True), 0.0)
    outbox.taken_away("t", lost)
    assert outbox.holds("t") == held
    assert outbox.due is None
    assert outbox.body_bytes == (100 if held else 0)
