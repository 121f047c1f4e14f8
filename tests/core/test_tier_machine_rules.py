"""The machine's rules under any order of events, and broken machines that each break one."""

from __future__ import annotations

import pytest
import tier_world
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from simulation.mutants import ForgetsDeadlines, LosesTheReplaced, ReplacesAcrossDevices

from branchy.core import tier_events as ev
from branchy.core.job_table import JobTable
from branchy.core.tier_machine import TierMachine

TestTierRules = tier_world.TierRules.TestCase
TestTierRules.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class SettlesEarly(TierMachine):
    """Settles when the answer is sent, not when the broker has it."""

    def _send(self, token, effect):
        super()._send(token, effect)
        self._out.append(ev.Settle(token))


class AnswersTwice(TierMachine):
    """Answers again when the front's answer comes late."""

    def _on_front_answered(self, event, now):
        job = self.way_up.job(event.correlation)
        request = job and job.request.id
        super()._on_front_answered(event, now)
        if job is not None:
            answer = tier_world.front_answer(request)
            self._send(job.token, ev.SendAnswer(job.token, job.reply_to, job.correlation, answer, None))


class SameIds(JobTable):
    """Takes the same ids from the same reply address for the same request."""

    def same(self, job):
        return next((other for other in self if other.key == job.key), None)


class ReplacesAcrossPayloads(TierMachine):
    """Lets a delivery give way to one of another sample."""

    def __init__(self, *args):
        super().__init__(*args)
        self._jobs = SameIds()


class SettlesTheForgotten(TierMachine):
    """Settles what goes to another replica unanswered."""

    def _on_taken_away(self, event, now):
        super()._on_taken_away(event, now)
        self._out += [ev.Settle(e.token) for e in list(self._out) if isinstance(e, ev.Forget)]


class HasNoBounds(TierMachine):
    """Lets any number of requests wait for the front."""

    def __init__(self, *args):
        super().__init__(*args)
        self.way_up._limit = 10**9


@pytest.mark.parametrize(
    "mutant",
    [
        SettlesEarly,
        AnswersTwice,
        ForgetsDeadlines,
        LosesTheReplaced,
        ReplacesAcrossPayloads,
        ReplacesAcrossDevices,
        SettlesTheForgotten,
        HasNoBounds,
    ],
    ids=lambda mutant: mutant.__name__,
)
def test_a_broken_machine_breaks_a_rule(mutant):
    rules = type(f"{mutant.__name__}Rules", (tier_world.TierRules,), {"machine_class": mutant})
    quick = settings(
        max_examples=1500,
        stateful_step_count=60,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(rules, settings=quick)
