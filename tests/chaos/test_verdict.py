"""`make chaos` sees each promise that is broken, and takes what a fail-over allows for what it is."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import pytest
from chaos.faults import CLOSE_WINDOW_S, Act, Fault, Window
from chaos.traffic import Place, Seen
from chaos.verdict import OPEN_WINDOW_S, Verdict, judge, table
from chaos.world import BreakerChange

from branchy.core.messages import Answer, Hop
from branchy.core.requester import Outcome

START_S = 1_000.0
DEADLINE_S = 1.0
HOP = Hop("edge", None, None, None, queue_ms=2.0, compute_ms=1.0, total_ms=990.0)


def nothing(act: Act) -> None:
    pass


def answer(number: int, reason: str = "confident", status: str = "ok") -> Answer:
    said = {"status": cast(Any, status), "reason": cast(Any, reason)}
    return Answer(request=f"q{number}", **said, tier="edge", model="m", hops=(HOP,))


PLACE = Place(request=3, answer=7)


def seen(
    number: int, latency_s: float = 0.1, *, right: bool = True, place: Place | None = PLACE, **of_answer: str
) -> Seen:
    """A request that was asked at `START_S`."""
    outcome = Outcome(f"q{number}", number, latency_s, answer(number, **of_answer))
    return Seen(outcome, START_S + latency_s, right, place)


def unanswered(number: int) -> Seen:
    return Seen(Outcome(f"q{number}", number, 31.0, None, "no answer within 31 s"), START_S + 31.0, True, PLACE)


def verdict_on(
    some: Sequence[Seen],
    *,
    windows: Sequence[Window] = (),
    breakers: Sequence[BreakerChange] = (),
    fault: Fault | None = None,
    spoilt: bool = False,
    timed: bool = True,
    counters: Counter[str] | None = None,
) -> Verdict:
    act = Act(cast(Any, None), random.Random(1), windows=list(windows))
    if spoilt:
        act.spoilt_s, act.healed_s = START_S, START_S + 20.0
    fault = fault or Fault("something", nothing)
    return judge(fault, act, some, counters or Counter(), breakers, deadline_s=DEADLINE_S, timed=timed)


def broken(some: Sequence[Seen], **how: Any) -> list[str]:
    return verdict_on(some, **how).broken


GOOD = [seen(0), seen(1, 1.09, reason="timeout"), seen(2)]
WINDOW = Window("node 2", START_S, 8.0, requests=frozenset({3, 4}))


def test_answers_in_time_break_nothing():
    verdict = verdict_on(GOOD, counters=Counter(duplicates=1))
    assert verdict.broken == []
    assert (verdict.asked, verdict.again, verdict.late, verdict.reasons["timeout"]) == (3, 1, 0, 1)


@pytest.mark.parametrize(
    ("some", "said"),
    [
        ([], "nothing was asked"),
        ([*GOOD, unanswered(3)], "1 requests got no answer: {'no answer within 31 s': 1}"),
        ([*GOOD, seen(3, right=False)], "1 answers are not what the model says"),
        ([*GOOD, seen(2)], "an answer was handed on twice, or to nobody"),
        (GOOD[1:], "an answer was handed on twice, or to nobody"),
        (
            [*GOOD, seen(3, 1.11)],
            "1 answers came later than their deadline + 0.1 s, one after 1.11 s (edge 990 ms, 2 of it queued), "
            "on partitions [3]: {'confident': 1}",
        ),
        ([*GOOD, seen(3, status="rejected", reason="expired")], "1 requests were refused without need: {'expired': 1}"),
    ],
)
def test_a_broken_promise_is_told(some, said):
    assert said in broken(some)


def test_an_answer_that_is_nobodys_is_told():
    assert broken(GOOD, counters=Counter(stray=2)) == ["answers came that are nobody's: {'stray': 2}"]


def test_in_a_fail_overs_window_answers_may_be_late_or_refusals_and_the_last_is_measured():
    some = [*GOOD, seen(3, 5.0), seen(4, 7.5, status="rejected", reason="expired")]
    verdict = verdict_on(some, windows=[WINDOW])
    assert verdict.broken == []
    assert (verdict.late, verdict.refused, verdict.window_s) == (2, 1, 7.5)
    assert len(broken([*GOOD, seen(3, 8.5)], windows=[WINDOW])) == 1


@pytest.mark.parametrize(("reason", "excused"), [("expired", True), ("overload", True), ("digest", False)])
def test_a_fail_over_excuses_only_refusals_that_being_late_explains(reason, excused):
    some = [*GOOD, seen(3, 5.0, status="rejected", reason=reason)]
    told = [] if excused else [f"1 requests were refused without need: {{'{reason}': 1}}"]
    assert broken(some, windows=[WINDOW]) == told


@pytest.mark.parametrize("place", [Place(request=5, answer=3), None])
@pytest.mark.parametrize("how", [{"latency_s": 5.0}, {"status": "rejected", "reason": "expired"}])
def test_in_a_fail_overs_window_what_lies_on_other_partitions_is_held_to_its_promises(place, how):
    assert len(broken([*GOOD, seen(3, place=place, **how)], windows=[WINDOW])) == 1


def test_a_fail_over_of_the_answers_partition_is_one_of_all_that_ask_for_their_answers_there():
    some = [*GOOD, seen(3, 5.0, place=Place(request=5, answer=7))]
    window = Window("node 2", START_S, 8.0, requests=frozenset({3, 4}), answers=frozenset({7}))
    assert broken(some, windows=[window]) == []
    assert len(broken([*some, seen(4, 5.0, place=Place(request=5, answer=8))], windows=[window])) == 1


def test_on_a_busy_machine_time_does_not_count_and_everything_else_does():
    late = [*GOOD, seen(3, 5.0), seen(4, status="rejected", reason="expired")]
    assert broken(late, timed=False) == []
    assert len(broken([*late, seen(5, status="rejected", reason="digest")], timed=False)) == 1
    assert len(broken([*late, unanswered(5)], timed=False)) == 1


def opens(at_s: float, failed: int = 10, outcomes: int = 20) -> BreakerChange:
    return BreakerChange("edge", 0, START_S + at_s, failed, outcomes)


def closes(after_s: float) -> BreakerChange:
    return BreakerChange("edge", 0, START_S + 20.0 + after_s)


HOLE = Fault("link: black hole", nothing, "opens", "fog")


def test_a_breaker_that_opens_and_closes_in_time_is_measured():
    verdict = verdict_on(GOOD, fault=HOLE, spoilt=True, breakers=[opens(6.0), closes(1.5)])
    assert (verdict.broken, verdict.opened_s, verdict.closed_s) == ([], 6.0, 1.5)


@pytest.mark.parametrize(
    ("breakers", "said"),
    [
        ([], "no breaker opened although nothing came through"),
        ([opens(6.0)], "the breaker of edge-0 is still open"),
        (
            [opens(OPEN_WINDOW_S + DEADLINE_S + 0.1), closes(1.0)],
            "the first breaker opened after 8.1 s, promised are 8 s",
        ),
        (
            [opens(6.0), closes(CLOSE_WINDOW_S + 0.5)],
            "a breaker closed 5.5 s after the link was back, promised are 5 s",
        ),
        ([opens(6.0, 9, 20), closes(1.0)], "a breaker of edge opened on 9 of 20"),
        ([opens(6.0, 19, 19), closes(1.0)], "a breaker of edge opened on 19 of 19"),
    ],
)
def test_a_breaker_that_does_not_keep_its_rule_is_told(breakers, said):
    assert broken(GOOD, fault=HOLE, spoilt=True, breakers=breakers) == [said]


def test_a_breaker_that_opens_on_a_link_that_answers_in_time_is_told():
    fault = Fault("link: round trip + 50 ms", nothing, "stays closed", "fog")
    found = broken(GOOD, fault=fault, spoilt=True, breakers=[opens(6.0), closes(1.0)])
    assert found == ["a breaker opened although the link answers in time"]


def test_the_table_has_what_was_seen_and_what_broke():
    lines = table([verdict_on(GOOD), verdict_on([*GOOD, unanswered(3)])]).splitlines()
    assert lines[0].split()[:3] == ["fault", "to", "asked"]
    assert lines[1].split()[:3] == ["something", "3", "2"]
    assert lines[3] == "    BROKEN: 1 requests got no answer: {'no answer within 31 s': 1}"
