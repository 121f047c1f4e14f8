"""What became of the requests during a fault, and which promises that breaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from chaos.faults import CLOSE_WINDOW_S, Act, Fault
from chaos.traffic import Seen
from chaos.world import BreakerChange

LATE_S = 0.1
"""So long after its deadline an answer counts as in time."""
MINIMUM, SHARE, WINDOW_S = 20, 0.5, 10.0
"""The breaker's rule, as the documentation has it."""
OPEN_WINDOW_S = WINDOW_S * SHARE + 2.0
"""Besides a deadline, once nothing is answered: until half of what the breaker looks back at has failed."""
OUT_OF_TIME = frozenset({"expired", "overload"})
"""Why one is refused that comes late, alone or with all others that had to wait: a fail-over excuses no other."""
IN_FULL = frozenset({"confident", "final"})


@dataclass
class Verdict:
    """One line of the table.

    Attributes:
        fault: what went wrong.
        did: to whom.
        asked: requests.
        reasons: of the answers that are predictions.
        refused: answers that are none, all of what fails over.
        lost: without an answer.
        late: answered more than `LATE_S` after their deadline, all of what fails over.
        again: answers that came a second time, and were not handed on.
        longest_s: the longest that a request took.
        window_s: of fail-overs, how long after their start the last late answer or refusal came.
        opened_s: how long after the link was spoilt the first breaker opened.
        closed_s: how long after it was well the last breaker closed.
        broken: promises, a line each.
    """

    fault: str
    did: str
    asked: int
    reasons: Counter[str]
    refused: int
    lost: int
    late: int
    again: int
    longest_s: float
    window_s: float | None
    opened_s: float | None = None
    closed_s: float | None = None
    broken: list[str] = field(default_factory=list)


def judge(
    fault: Fault,
    act: Act,
    seen: Sequence[Seen],
    counters: Counter[str],
    breakers: Sequence[BreakerChange],
    *,
    deadline_s: float,
    timed: bool,
) -> Verdict:
    """Hold what was seen during a fault to what is promised.

    Args:
        fault: its kind.
        act: what was done, and when.
        seen: every request.
        counters: what came to the device meanwhile and was not handed on, by why.
        breakers: all changes since the tiers started, those of before the fault too.
        deadline_s: of each request.
        timed: whether it counts how long things took; not where the machine may be busy with other things.
    """
    answers = [(each, each.outcome.answer) for each in seen]
    late = [each for each in seen if each.outcome.latency_s > deadline_s + LATE_S]
    refused = [each for each, answer in answers if answer is not None and answer.status != "ok"]
    excused = [each.ended_s - w.start_s for each in (*late, *refused) for w in act.windows if w.excuses(each)]
    verdict = Verdict(
        fault=fault.name,
        did=", ".join(act.did),
        asked=len(seen),
        reasons=Counter(answer.reason for _, answer in answers if answer is not None and answer.status == "ok"),
        refused=len(refused),
        lost=sum(answer is None for _, answer in answers),
        late=len(late),
        again=counters["duplicates"],
        longest_s=max((each.outcome.latency_s for each in seen), default=0.0),
        window_s=max(excused) if excused else None,
    )
    verdict.broken += _broken_answers(verdict, act, seen, late if timed else [], refused, counters, timed)
    verdict.broken += _broken_breakers(fault, act, breakers, verdict, OPEN_WINDOW_S + deadline_s if timed else None)
    return verdict


def _broken_answers(
    verdict: Verdict,
    act: Act,
    seen: Sequence[Seen],
    late: Sequence[Seen],
    refused: Sequence[Seen],
    counters: Counter[str],
    timed: bool,
) -> Iterator[str]:
    def excused(each: Seen) -> bool:
        return any(window.excuses(each) for window in act.windows)

    if not seen:
        yield "nothing was asked"
    if verdict.lost:
        faults = Counter(each.outcome.fault for each in seen if each.outcome.answer is None)
        yield f"{verdict.lost} requests got no answer: {dict(faults)}"
    if wrong := sum(not each.right for each in seen):
        yield f"{wrong} answers are not what the model says"
    numbers = sorted(each.outcome.index for each in seen)
    if numbers != list(range(len(seen))) or len({each.outcome.request for each in seen}) != len(seen):
        yield "an answer was handed on twice, or to nobody"
    if others := {word: n for word, n in counters.items() if word not in ("duplicates", "capped")}:
        yield f"answers came that are nobody's: {others}"
    if behind := [each for each in late if not excused(each)]:
        worst = max(behind, key=lambda each: each.outcome.latency_s)
        reasons = Counter(each.outcome.answer.reason for each in behind if each.outcome.answer)
        yield (
            f"{len(behind)} answers came later than their deadline + {LATE_S:g} s, one after "
            f"{worst.outcome.latency_s:.2f} s ({_hops(worst)}){_when(behind, act)}, "
            f"on partitions {sorted({each.place.request for each in behind if each.place})}: {dict(reasons)}"
        )
    denied = Counter(
        answer.reason
        for each in refused
        if (answer := each.outcome.answer) and (answer.reason not in OUT_OF_TIME or (timed and not excused(each)))
    )
    if denied:
        yield f"{denied.total()} requests were refused without need: {dict(denied)}"


def _hops(seen: Seen) -> str:
    """How long each tier that an answer passed had it, by its own record."""
    hops = () if seen.outcome.answer is None else seen.outcome.answer.hops
    return ", ".join(f"{hop.tier} {hop.total_ms:.0f} ms, {hop.queue_ms:.0f} of it queued" for hop in hops) or "no hops"


def _when(some: Sequence[Seen], act: Act) -> str:
    """When they came, counted from the last thing that was done before the first of them."""
    first_s, last_s = min(each.ended_s for each in some), max(each.ended_s for each in some)
    done = [window for window in act.windows if window.start_s <= first_s]
    if not done:
        return ""
    what, start_s = done[-1].what, done[-1].start_s
    return f", {first_s - start_s:.1f} to {last_s - start_s:.1f} s after {what}"


def _broken_breakers(
    fault: Fault, act: Act, breakers: Sequence[BreakerChange], verdict: Verdict, open_window_s: float | None
) -> Iterator[str]:
    for change in breakers:
        if change.failed is not None and change.outcomes is not None and not _by_rule(change.failed, change.outcomes):
            yield f"a breaker of {change.tier} opened on {change.failed} of {change.outcomes}"
    if act.spoilt_s is None or act.healed_s is None:
        return
    during = [change for change in breakers if change.at_s >= act.spoilt_s]
    opened = [change.at_s - act.spoilt_s for change in during if change.opened]
    closed = [change.at_s - act.healed_s for change in during if not change.opened]
    verdict.opened_s, verdict.closed_s = min(opened, default=None), max(closed, default=None)
    if fault.breaker == "stays closed" and opened:
        yield "a breaker opened although the link answers in time"
    if fault.breaker == "opens" and verdict.opened_s is None:
        yield "no breaker opened although nothing came through"
    if open_window_s is not None and fault.breaker == "opens" and (verdict.opened_s or 0.0) > open_window_s:
        yield f"the first breaker opened after {verdict.opened_s:.1f} s, promised are {open_window_s:g} s"
    last = {(change.tier, change.replica): change for change in during}
    for (tier, replica), change in last.items():
        if change.opened:
            yield f"the breaker of {tier}-{replica} is still open"
    if open_window_s is not None and verdict.closed_s is not None and verdict.closed_s > CLOSE_WINDOW_S:
        yield f"a breaker closed {verdict.closed_s:.1f} s after the link was back, promised are {CLOSE_WINDOW_S:g} s"


def _by_rule(failed: int, outcomes: int) -> bool:
    return outcomes >= MINIMUM and failed >= SHARE * outcomes


def table(verdicts: Sequence[Verdict]) -> str:
    """For a person: a line a fault, and what broke below it."""
    head = (
        "fault",
        "to",
        "asked",
        "in full",
        "fallback",
        "refused",
        "lost",
        "again",
        "late",
        "longest",
        "last",
        "breaker",
    )
    rows = [head, *(_cells(verdict) for verdict in verdicts)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    left = {0, 1, len(head) - 1}
    lines = []
    for number, row in enumerate(rows):
        cells = [
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
        lines += [f"    BROKEN: {text}" for text in (verdicts[number - 1].broken if number else ())]
    return "\n".join(lines)


def _cells(verdict: Verdict) -> tuple[str, ...]:
    in_full = sum(count for reason, count in verdict.reasons.items() if reason in IN_FULL)
    breaker = [] if verdict.opened_s is None else [f"opened after {verdict.opened_s:.1f} s"]
    breaker += [] if verdict.closed_s is None else [f"closed {verdict.closed_s:+.1f} s"]
    return (
        verdict.fault,
        verdict.did,
        str(verdict.asked),
        str(in_full),
        str(verdict.reasons.total() - in_full),
        str(verdict.refused),
        str(verdict.lost),
        str(verdict.again),
        str(verdict.late),
        f"{verdict.longest_s:.2f} s",
        "" if verdict.window_s is None else f"{verdict.window_s:.1f} s",
        ", ".join(breaker),
    )
