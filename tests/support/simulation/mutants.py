"""Machines, devices and a shell broken on purpose: the simulation must find each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from branchy.core import tier_events as ev
from branchy.core.breaker import Breaker
from branchy.core.job_table import JobTable
from branchy.core.messages import Answer
from branchy.core.requester import Outcome, Requester
from branchy.core.tier_machine import TierMachine
from branchy.runner.tier import Tier


class CommitsEarly(TierMachine):
    """Settles a delivery when its answer is sent, not when the brokers have it."""

    def handle(self, event: ev.Event, now: float) -> list[ev.Effect]:
        return [more for effect in super().handle(event, now) for more in self._with_settle(effect)]

    def advance(self, now: float) -> list[ev.Effect]:
        return [more for effect in super().advance(now) for more in self._with_settle(effect)]

    def _with_settle(self, effect: ev.Effect) -> list[ev.Effect]:
        if isinstance(effect, ev.SendAnswer) and self._outbox.acknowledged(effect.token):
            return [effect, ev.Settle(effect.token)]
        return [effect]


class NeverDue(JobTable):
    """No alarm is set."""

    def watch(self, job: Any) -> None:
        """Nothing."""


class ForgetsDeadlines(TierMachine):
    """Waits for its own computing and for the front for as long as they take."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._jobs = NeverDue()


class AnswersTwice(TierMachine):
    """Answers from its own exit, and again when the front's answer comes late."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._gone_up: dict[bytes, Any] = {}

    def _on_front_answered(self, event: ev.FrontAnswered, now: float) -> None:
        job = self.way_up.job(event.correlation)
        late = self._gone_up.pop(event.correlation, None)
        super()._on_front_answered(event, now)
        if job is None and late is not None and event.answer is not None:
            answer = event.answer.behind(late.hop(self.tier, now))
            self._out.append(ev.SendAnswer(late.token, late.reply_to, late.correlation, answer, None))

    def _go_up(self, job: Any, *rest: Any) -> None:
        super()._go_up(job, *rest)
        if job.phase == "pending":
            self._gone_up[job.up] = job


class StuckBreaker(Breaker):
    """A breaker that a probe's answer does not close."""

    def _change(self, state: Any) -> None:
        if state == "open":
            super()._change(state)


class NeverCloses(TierMachine):
    """Its breaker opens and stays open."""

    def handle(self, event: ev.Event, now: float) -> list[ev.Effect]:
        breaker = self.way_up.breaker
        if type(breaker) is Breaker:
            self.way_up.breaker.__class__ = StuckBreaker
        return super().handle(event, now)


class LosesTheReplaced(TierMachine):
    """Drops the older delivery of a request that came again, without a word."""

    def _replace(self, job: Any, event: ev.Came, deadline: Any) -> None:
        self._jobs.move(job, event.token)


class SameIds(JobTable):
    """Takes the same id at the same reply address for the same request, whatever its sample."""

    def same(self, job: Any) -> Any:
        ids = (job.reply_to, job.request.id)
        return next((other for other in self if (other.reply_to, other.request.id) == ids), None)


class ReplacesAcrossPayloads(TierMachine):
    """Lets a delivery give way to one of another sample."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._jobs = SameIds()


class SameSamples(JobTable):
    """Takes the same id and sample at the same reply address for the same attempt."""

    def same(self, job: Any) -> Any:
        others = (other for other in self if other.reply_to == job.reply_to)
        return next((other for other in others if other.request.same_as(job.request)), None)


class ReplacesAcrossDevices(TierMachine):
    """Lets a delivery give way to one of another device."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._jobs = SameSamples()


class AnswersById(TierMachine):
    """Tells the front's answers apart by the request's id, not by their correlation."""

    def _on_front_answered(self, event: ev.FrontAnswered, now: float) -> None:
        waiting = self.way_up._pending
        asked = event.answer and event.answer.request
        by_id = next((mark for mark, job in waiting.items() if job.request.id == asked), event.correlation)
        super()._on_front_answered(replace(event, correlation=by_id), now)


class HoldsAnyBytes(TierMachine):
    """Counts what it holds, not how large that is."""

    def __init__(self, tier: str, models: Any, limits: Any, *rest: Any) -> None:
        super().__init__(tier, models, replace(limits, held_bytes=2**40), *rest)


class PausesTooLong(TierMachine):
    """Stops taking requests at a bound, and goes on when nothing is left."""

    def _hold_or_resume(self) -> None:
        if not self._paused or self.idle:
            super()._hold_or_resume()


class SettlesTheForgotten(TierMachine):
    """Settles what goes to another replica without an answer."""

    def _on_taken_away(self, event: ev.TakenAway, now: float) -> None:
        super()._on_taken_away(event, now)
        self._out = [replace(e, superseded=True) if isinstance(e, ev.Forget) else e for e in self._out]


class HandsOnTwice(Requester):
    """A device without the dedupe: whatever answers a request of its own is handed on."""

    def take(self, correlation: bytes | None, answer: Answer | None, now: float) -> Outcome | None:
        number = self._number(correlation)
        pending = self._pending.get(number) if number is not None else None
        outcome = super().take(correlation, answer, now)
        if pending is not None and number is not None:
            self._pending[number] = pending
        return outcome


class LosesAnswers(Requester):
    """A device that misses some answers, and asks again when its time is over."""

    def take(self, correlation: bytes | None, answer: Answer | None, now: float) -> Outcome | None:
        number = self._number(correlation)
        return None if number is not None and number % 3 == 2 else super().take(correlation, answer, now)


class DropsQuickBatches(Tier):
    """Forgets what was computed at once and is more than a step takes."""

    def step(self, events: Any) -> None:
        super().step(events)
        self._inbox.clear()
