"""Whole cascades on a virtual clock, thousands of schedules; docs/simulation.md says what is in the world.

`make simulate SEEDS=100000` runs more of them, on every core. A seed that fails is put into REGRESSIONS.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from simulation import mutants
from simulation.cascade import Cascade
from simulation.plan import Fault, make_plan
from simulation.run import run_plan, run_seeds, shortest, tell, trace
from simulation.shrink import shrink

pytestmark = pytest.mark.slow

SEEDS, CHUNK = 2_000, 250
REGRESSIONS = {
    11: "an answer that opened the breaker left the stale forwards in the queue",
    57: "a dead letter whose partition was lost was kept for ever",
    129: "a broker whose clock was set back had all that came refused as expired",
    183: "late answers kept a well front from being used",
    882: "a full send queue made answers late",
    13410: "a fetch that had left over a slow link came long after it was fast again",
    14248: "a tier whose hands were full left a request of 20 ms with the brokers",
}
BROKEN = {
    "commits early": ("commit passes the unanswered", {"machine_class": mutants.CommitsEarly}),
    "forgets deadlines": ("deadline", {"machine_class": mutants.ForgetsDeadlines}),
    "answers twice": ("one end", {"machine_class": mutants.AnswersTwice}),
    "breaker never closes": ("recovery", {"machine_class": mutants.NeverCloses}),
    "hands on twice": ("handed on once", {"requester_class": mutants.HandsOnTwice}),
    "replaces across payloads": ("superseded", {"machine_class": mutants.ReplacesAcrossPayloads}),
    "replaces across devices": ("superseded", {"machine_class": mutants.ReplacesAcrossDevices}),
    "answers by id": ("label", {"machine_class": mutants.AnswersById}),
    "holds any bytes": ("bounds", {"machine_class": mutants.HoldsAnyBytes}),
    "loses answers": ("deadline of the device", {"requester_class": mutants.LosesAnswers}),
    "loses the replaced": ("deadline", {"machine_class": mutants.LosesTheReplaced}),
    "pauses too long": ("pause", {"machine_class": mutants.PausesTooLong}),
    "settles the forgotten": ("superseded", {"machine_class": mutants.SettlesTheForgotten}),
    "drops quick batches": ("recovery", {"tier_class": mutants.DropsQuickBatches}),
}
SUPPORT = Path(__file__).parents[1] / "support"


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_schedule_holds_every_rule_and_comes_right_again(first):
    for failure in run_seeds(range(first, first + CHUNK)):
        pytest.fail(tell(failure.seed), pytrace=False)


@pytest.mark.parametrize("seed", REGRESSIONS, ids=REGRESSIONS.get)
def test_a_seed_that_once_failed_passes(seed):
    plan = make_plan(seed)
    failure = run_plan(replace(plan, shape=replace(plan.shape, quick=False)))  # they are of before it was in the world
    assert failure is None, failure


@pytest.mark.parametrize(("rule", "broken"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_machine_is_found(rule, broken):
    failure = next(run_seeds(range(40), **broken), None)
    assert failure is not None
    assert failure.rule == rule


def test_the_same_seeds_give_the_same_traces_in_any_process():
    def trace_in_a_process(hash_seed: str) -> bytes:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(SUPPORT)}
        command = [sys.executable, "-m", "simulation.run", "40", "--trace"]
        return subprocess.run(command, env=environment, check=True, capture_output=True).stdout

    first = trace_in_a_process("1")
    assert first == trace_in_a_process("2")
    assert first.count(b"taken away") >= 3, "hand-overs come as sets, which have no order of their own"


def test_a_failing_seed_is_told_by_its_shortest_plan():
    _, broken = BROKEN["commits early"]
    seed = next(run_seeds(range(200), **broken)).seed
    plan, least = make_plan(seed), shortest(seed, **broken)
    assert len(least.asks) < len(plan.asks)
    assert run_plan(least, **broken) is not None
    for i in range(len(least.asks)):
        fewer = replace(least, asks=least.asks[:i] + least.asks[i + 1 :])
        assert run_plan(fewer, **broken) is None, "one request more than it takes"
    assert "commit passes the unanswered" in tell(seed, **broken).splitlines()[-1]


def test_shrinking_keeps_what_it_takes_and_nothing_else():
    plan = make_plan(2)
    wanted = {plan.asks[0].number, plan.asks[-1].number}
    least = shrink(plan, lambda some: wanted <= {ask.number for ask in some.asks})
    assert {ask.number for ask in least.asks} == wanted
    assert not least.faults


def test_what_goes_wrong_in_the_world_goes_wrong_in_the_tiers():
    """The faults reach what they are for: over some seeds, everything that a tier counts has happened."""
    counted: set[str] = set()
    for seed in range(120):
        cascade = Cascade(make_plan(seed))
        cascade.run()
        for process in cascade.processes.values():
            counted |= set(process.counters)
    expected = {
        *(f"answer.{reason}" for reason in ("confident", "final", "front", "timeout", "unreachable", "overload")),
        *(f"answer.{reason}" for reason in ("handover", "rejected", "failed", "malformed", "expired", "digest")),
        *("again", "late", "stray", "dead", "undeliverable", "send.failed", "paused", "breaker.open"),
    }
    assert expected <= counted, expected - counted


@pytest.mark.parametrize("kind", ["crash", "outage"])
def test_an_unsure_request_meets_the_fault_of_its_plan(kind):
    """A front that is gone is answered for by the tier behind it."""
    plan = next(p for p in map(make_plan, range(1000)) if len(p.shape.tiers) == 3 and p.shape.replicas[1] == 1)
    gone = Fault(kind, 0.0, 1.9, "fog/0" if kind == "crash" else "fog")
    ask = replace(plan.asks[0], at_s=1.0, kind=len(plan.shape.stages) - 1, budget_ms=500.0, sort="sample")
    lines = trace(replace(plan, asks=(ask,), faults=(gone,), heal_s=2.0))
    assert any(f"{ask.request} ok timeout of edge" in line for line in lines)
