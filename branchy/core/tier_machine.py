"""The tier as a state machine without I/O: events in, effects out.

The caller tells what happened (`handle`), lets time pass (`advance`), carries out the
effects, and wakes it again at `wakeup`. It owns every decision of a tier: who is
sure, who goes up, who is answered here and why, and when a delivery may be settled.

Each token it is given gets exactly one terminal effect: `SendAnswer`, `DeadLetter` or
`Forget`; `Settle` follows once the broker has the first two. No entry outlives its deadline.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, Literal, cast

from branchy.core import tier_events as ev
from branchy.core.cascade import Array, StageSpec
from branchy.core.deadline import LONGEST_GRACE_S, Deadline
from branchy.core.histogram import Histogram
from branchy.core.job_table import JobTable
from branchy.core.jobs import NOTHING, Job, WorkQueue
from branchy.core.messages import Answer, EncodedSample, Hop, Reason, Request, is_certified
from branchy.core.outbox import Outbox
from branchy.core.policies import Verdict, judge_finite
from branchy.core.tier_model import TierLimits, TierModel
from branchy.core.way_up import WayUp
from branchy.errors import WireError

LATENCY_BOUNDS_MS = (1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 10e3, 30e3)


class TierMachine:
    """Decides for one replica of one tier.

    Attributes:
        counters: what happened so far, by word (`came`, `answer.confident`, `late`, ...).
        latencies_ms: of what was answered, from its arrival here to its answer.
        way_up: the pending table, the breaker and the round-trip estimate.
    """

    def __init__(
        self,
        tier: str,
        models: Sequence[TierModel],
        limits: TierLimits,
        correlation_prefix: bytes = b"",
        workers: int = 1,
    ) -> None:
        self.tier = tier
        self.counters: Counter[str] = Counter()
        self.latencies_ms = Histogram(LATENCY_BOUNDS_MS)
        self.way_up = WayUp(limits.window_s, limits.probe_s, limits.pending, correlation_prefix)
        self._models = {m.digest: m for m in models}
        self._limits = limits
        self._free_workers = workers
        self._jobs = JobTable()
        self._outbox = Outbox()
        self._queue = WorkQueue()
        self._works: dict[int, tuple[list[Job], float]] = {}
        self._numbers = count()
        self._paused = False
        self._back_full = False
        self._draining = False
        self._out: list[ev.Effect] = []
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            ev.Came: self._on_came,
            ev.Malformed: self._on_malformed,
            ev.Computed: self._on_computed,
            ev.ForwardEncoded: self._on_forward_encoded,
            ev.FrontAnswered: self._on_front_answered,
            ev.ForwardFailed: self._on_forward_failed,
            ev.Acknowledged: self._on_acknowledged,
            ev.SendFailed: self._on_send_failed,
            ev.TakenAway: self._on_taken_away,
            ev.BackFull: self._on_back_full,
            ev.Drain: self._on_drain,
        }

    # --- the caller's side ---------------------------------------------------------------------------------------

    def handle(self, event: ev.Event, now: float) -> list[ev.Effect]:
        """Take one event; returns what is to be done because of it, in order."""
        self._handlers[type(event)](event, now)
        return self._take_effects()

    def advance(self, now: float) -> list[ev.Effect]:
        """Let time pass: due fallbacks and expiries, a batch where a worker is free, pause and resume."""
        while (job := self._jobs.due(now)) is not None:
            if job.verdict is not None:
                if job.phase == "pending":
                    self._count_outcome(job, False, now)
                self._answer_here(job, "timeout", now)
            else:
                self._reject(job, "expired", "the deadline passed before it was computed", now)
        if self._outbox.due is not None:
            self._out += self._outbox.again(now)
        self._submit(now)
        self._hold_or_resume()
        return self._take_effects()

    def wakeup(self) -> float | None:
        """When to call `advance` again if nothing happens before; None when nothing is due."""
        due, kept = self._jobs.next_due, self._outbox.due
        return due if kept is None else kept if due is None else min(due, kept)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way and every answer and dead letter is acknowledged."""
        return not self._jobs and not self._outbox

    @property
    def pending(self) -> int:
        """Requests that wait for the front."""
        return len(self.way_up)

    @property
    def waiting(self) -> int:
        """Requests that wait to be computed."""
        return len(self._queue)

    @property
    def unsettled(self) -> int:
        """Deliveries that are under way, or whose answer or dead letter is not acknowledged yet."""
        return len(self._jobs) + len(self._outbox)

    @property
    def held_bytes(self) -> int:
        """Bytes of bodies and inputs of what is under way, or goes to the dead letters."""
        return self._jobs.held_bytes + self._outbox.body_bytes

    def oldest_waiting_s(self, now: float) -> float:
        """Age of the request that waits longest to be computed, its time in the queue included; 0 when none waits."""
        oldest = self._queue.oldest()
        return 0.0 if oldest is None else now - oldest

    def holds(self, token: ev.Token) -> bool:
        """Whether this token's answer or dead letter is not acknowledged yet."""
        return token in self._jobs or self._outbox.holds(token)

    # --- arrivals ------------------------------------------------------------------------------------------------

    def _on_came(self, event: ev.Came, now: float) -> None:
        self.counters["came"] += 1
        if self._draining:
            self._out.append(ev.Forget(event.token, superseded=False))
            return
        request = event.request
        deadline = Deadline.of(now, request.budget_ms, event.age_s, self._limits.way_back_s)
        model = self._models.get(request.model)
        if model is None:
            text = f"expected model {' or '.join(d[:12] for d in self._models)}, got {request.model[:12]}"
            self._refuse(event, "digest", text, now)
        elif deadline.expires <= now:
            self._refuse(event, "expired", "the deadline had passed when it came", now)
        elif not self._in_time(request.model, 0, deadline, now):
            self._refuse(event, "overload", "this tier cannot answer it in time", now)
        else:
            self._accept(event, model, deadline, now)

    def _accept(self, event: ev.Came, model: TierModel, deadline: Deadline, now: float) -> None:
        try:
            sample = model.first_input(event.request)
        except WireError as error:
            self._on_malformed(_malformed(event, error.code, str(error)), now)
            return
        job = Job(event, deadline, sample, now)
        older = self._jobs.same(job)
        if older is not None:
            self._replace(older, event, deadline)
            return
        self._jobs.add(job)
        self._queue.push(job)

    def _replace(self, job: Job, event: ev.Came, deadline: Deadline) -> None:
        """The same attempt again (redelivered, or written twice): the newer delivery takes the older one's place.

        Who asked waits since the first of them, so the earlier deadline stays.
        """
        self.counters["again"] += 1
        self._out.append(ev.Forget(job.token, superseded=True))
        self._jobs.move(job, event.token)
        if deadline.expires < job.deadline.expires:  # its age was not known before
            job.deadline = deadline
            self._jobs.watch(job)

    def _on_malformed(self, event: ev.Malformed, now: float) -> None:
        self.counters[f"malformed.{event.code}"] += 1
        self._dead_letter(event.token, event.code, event.text, event.body_bytes)
        if event.reply_to is not None:
            answer = self._answer(event.request or "", "error", "malformed", "", detail=f"{event.code}: {event.text}")
            self._out.append(ev.SendAnswer(None, event.reply_to, event.correlation, answer, None))

    def _refuse(self, event: ev.Came, reason: Reason, text: str, now: float) -> None:
        hop = Hop(self.tier, None, None, None, 0.0, 0.0, 0.0)
        answer = self._answer(event.request.id, "rejected", reason, event.request.model, hop=hop, detail=text)
        self._reply(event, answer, event.request, now)

    def _in_time(self, model: str, position: int, deadline: Deadline, now: float) -> bool:
        """Whether one that comes to a stage now is computed early enough, going by the queue's estimate."""
        fallback = position > 0 or self._models[model].behind  # an exit before it, here or behind
        return self._queue.fits(model, position, deadline.answer_by - now, fallback=fallback)

    # --- computing -----------------------------------------------------------------------------------------------

    def _submit(self, now: float) -> None:
        while self._free_workers and (batch := self._queue.take(self._limits.batch_size)):
            self._free_workers -= 1
            work = next(self._numbers)
            self._works[work] = batch, now
            model = batch[0].model
            stage = self._models[model].stages[batch[0].position]
            self._out.append(ev.Submit(work, model, stage.name, [job.input for job in batch]))

    def _on_computed(self, event: ev.Computed, now: float) -> None:
        batch, taken = self._works.pop(event.work)
        self._free_workers += 1
        self._queue.computed(batch, now - taken)  # with what else goes on here meanwhile, such as refusing others
        model = self._models[batch[0].model]
        stage = model.stages[batch[0].position]
        done = [job for i, job in enumerate(batch) if i not in event.failures]
        verdicts = self._judge(stage, model, event.outputs, done)
        for i, text in event.failures.items():
            self._fail(batch[i], text, now)
        for row, job in enumerate(done):
            if job.phase != "computing":
                continue  # expired, or taken away, while it was computed
            if job.started is None:
                job.started = event.started
            job.compute_s += event.finished - event.started
            if verdicts is not None:
                verdict = verdicts[row]
                if verdict is None:
                    self._fail(job, f"stage {stage.name} gave logits that are not finite", now)
                    continue
                job.verdict, job.exit = verdict, stage.name
            self._decide(job, model, stage, event.outputs, row, now)
            if not job.ended:
                self._jobs.watch(job)  # it has a prediction to fall back to now, in time for the way back

    def _judge(
        self, stage: StageSpec, model: TierModel, outputs: Mapping[str, Array], done: Sequence[Job]
    ) -> list[Verdict | None] | None:
        """A verdict a row, None for one whose logits are not finite; None for a stage without an exit."""
        if stage.logits is None or not done:
            return None
        return judge_finite(outputs[stage.logits.name], model.exits[stage.name])

    def _decide(
        self, job: Job, model: TierModel, stage: StageSpec, outputs: Mapping[str, Array], row: int, now: float
    ) -> None:
        """What becomes of a computed job: the next stage here, an answer, or the way up."""
        if not stage.successors:
            self._answer_here(job, "final", now)
        elif job.verdict is not None and job.exit == stage.name and job.verdict.sure:
            self._answer_here(job, "confident", now)
        else:
            activation = outputs[cast(Any, stage.activation).name][row]
            if job.position + 1 == len(model.stages):
                self._go_up(job, stage, activation, now)
            elif self._draining and job.verdict is not None:
                self._answer_here(job, "handover", now)
            elif job.verdict is not None and not self._has_room(job, model, now):
                self._answer_here(job, "overload", now)
            else:
                job.position += 1
                self._jobs.feed(job, activation)
                self._queue.push(job)

    def _has_room(self, job: Job, model: TierModel, now: float) -> bool:
        """Whether one with a prediction may wait for the next stage here.

        Those that do take half of a bound at most. Else they would have the source paused, and what comes behind them
        wait with the brokers, sure or not, for as long as their deadlines are.
        """
        if self._queue.later >= self._limits.backlog // 2 or self._holds_half(job):
            return False
        return self._in_time(model.digest, job.position + 1, job.deadline, now)

    def _holds_half(self, job: Job) -> bool:
        """Whether the bytes held are above half of their bound, and not by this job alone."""
        return self.held_bytes > max(self._limits.held_bytes // 2, job.held_bytes)

    # --- the way up ----------------------------------------------------------------------------------------------

    def _go_up(self, job: Job, stage: StageSpec, activation: Array, now: float) -> None:
        if self._draining:
            self._answer_here(job, "handover", now)
            return
        if self.way_up.full or self._holds_half(job):
            self._answer_here(job, "overload", now)
            return
        budget_s = job.deadline.answer_by - now
        ticket = self.way_up.admit(budget_s, now)
        if ticket is None:
            self._answer_here(job, "unreachable", now)
            return
        correlation = self.way_up.begin(job, ticket, now)
        self._jobs.feed(job, NOTHING)  # its exits are through
        uplink, came = cast(Any, stage.uplink), job.request.payload
        payload: Mapping[str, Array] | EncodedSample = {cast(Any, stage.activation).name: activation}
        if uplink.kind == "sample" and isinstance(came, EncodedSample) and len(came.data) < activation.nbytes:
            payload = came  # the image itself, where that is smaller than its pixels
        request = replace(
            job.request, stage=stage.successors[0], budget_ms=budget_s * 1e3, payload=payload, body_bytes=0
        )
        self.counters["forwarded"] += 1
        self._out.append(ev.Forward(correlation, request, uplink))

    def _on_forward_encoded(self, event: ev.ForwardEncoded, now: float) -> None:
        job = self.way_up.job(event.correlation)
        if job is not None:
            job.bytes_up = event.bytes_up

    def _on_front_answered(self, event: ev.FrontAnswered, now: float) -> None:
        job = self.way_up.job(event.correlation)
        if job is None:
            self.counters["late" if self.way_up.answered_late(event.correlation, now) else "stray"] += 1
            return
        self._count_outcome(job, True, now)
        answer = event.answer
        if answer is not None and self._fits(answer, job):
            certified = self._models[job.model].certified
            self._finish(job, answer.behind(job.hop(self.tier, now), certified=certified))
        else:
            self.counters[f"front.{answer.reason if answer else 'unreadable'}"] += 1
            self._answer_here(job, "rejected", now)

    def _fits(self, answer: Answer, job: Job) -> bool:
        """Whether an answer is a prediction by the same model for the same request."""
        labels = self._models[job.model].labels
        return (
            answer.status == "ok"
            and answer.model == job.model
            and answer.request == job.request.id
            and answer.index is not None
            and 0 <= answer.index < len(labels)
        )

    def _on_forward_failed(self, event: ev.ForwardFailed, now: float) -> None:
        job = self.way_up.job(event.correlation)
        if job is not None:
            self._count_outcome(job, False, now)
            self._answer_here(job, "unreachable", now)

    def _count_outcome(self, job: Job, answered: bool, now: float) -> None:
        """Let the breaker know; an answer, too, may be the last of those it needs to see that half failed."""
        was = self.way_up.breaker.state
        (self.way_up.answered if answered else self.way_up.failed)(job, now)
        if was == "closed" and self.way_up.breaker.state == "open":
            self.counters["breaker.open"] += 1
            self._out.append(ev.PurgeFront())

    # --- answers -------------------------------------------------------------------------------------------------

    def _answer_here(self, job: Job, reason: Reason, now: float) -> None:
        """Answer from the tier's own last prediction."""
        verdict, model = cast(Verdict, job.verdict), self._models[job.model]
        answer = Answer(
            request=job.request.id,
            status="ok",
            reason=reason,
            tier=self.tier,
            model=job.model,
            label=model.labels[verdict.index],
            index=verdict.index,
            confidence=verdict.confidence,
            probabilities=verdict.probabilities,
            exit=job.exit,
            hops=(job.hop(self.tier, now),),
            certified=is_certified(reason, certified_tier=model.certified),
        )
        self._finish(job, answer)

    def _reject(self, job: Job, reason: Reason, text: str, now: float) -> None:
        answer = self._answer(job.request.id, "rejected", reason, job.model, hop=job.hop(self.tier, now), detail=text)
        self._finish(job, answer)

    def _fail(self, job: Job, text: str, now: float) -> None:
        """A stage could not be run on it: the prediction so far, or an error and the dead letters."""
        if job.phase != "computing":
            return
        if job.verdict is not None:
            self._answer_here(job, "failed", now)
            return
        request = self._drop(job)
        self._dead_letter(job.token, "failed", text, request.body_bytes)
        answer = self._answer(request.id, "error", "failed", request.model, detail=text)
        self._out.append(ev.SendAnswer(None, job.reply_to, job.correlation, answer, request.traceparent))

    def _answer(
        self,
        request: str,
        status: Literal["rejected", "error"],
        reason: Reason,
        model: str,
        *,
        hop: Hop | None = None,
        detail: str,
    ) -> Answer:
        """An answer without a label."""
        self.counters[f"answer.{reason}"] += 1
        return Answer(request, status, reason, self.tier, model, hops=(hop,) if hop else (), detail=detail)

    def _finish(self, job: Job, answer: Answer) -> None:
        if answer.status == "ok":
            self.counters[f"answer.{answer.reason}" if answer.tier == self.tier else "answer.front"] += 1
        self.latencies_ms.observe(answer.hops[0].total_ms)
        request = self._drop(job)
        self._reply(job, answer, request, job.arrived)

    def _drop(self, job: Job) -> Request:
        """Take a job out of every table; what refers to it still (timers, a batch) sees that it is done."""
        if job.phase == "waiting":
            self._queue.discard(job)
        elif job.phase == "pending":
            self.way_up.end(job)
        request = job.request
        self._jobs.remove(job)
        return request

    # --- settling ------------------------------------------------------------------------------------------------

    def _dead_letter(self, token: ev.Token, code: str, text: str, body_bytes: int) -> None:
        self.counters["dead"] += 1
        self._send(token, ev.DeadLetter(token, code, text, body_bytes))

    def _reply(self, to: ev.Came | Job, answer: Answer, request: Request, came: float) -> None:
        """Answer a request that came here then: its age may be wrong, so nothing is given up by that."""
        until = came + request.budget_ms / 1e3 + LONGEST_GRACE_S
        effect = ev.SendAnswer(to.token, to.reply_to, to.correlation, answer, request.traceparent, until)
        self._send(to.token, effect)

    def _send(self, token: ev.Token, effect: ev.SendAnswer | ev.DeadLetter) -> None:
        self._outbox.put(token, effect)
        self._out.append(effect)

    def _on_acknowledged(self, event: ev.Acknowledged, now: float) -> None:
        self._out += self._outbox.acknowledged(event.token)

    def _on_send_failed(self, event: ev.SendFailed, now: float) -> None:
        if self._outbox.holds(event.token):
            self.counters["send.failed"] += 1
            effects = self._outbox.failed(event, now)
            self.counters["undeliverable"] += any(isinstance(effect, ev.Settle) for effect in effects)
            self._out += effects

    # --- hand-over -----------------------------------------------------------------------------------------------

    def _on_taken_away(self, event: ev.TakenAway, now: float) -> None:
        for token in event.tokens:
            job = self._jobs.get(token)
            if job is None:
                self._outbox.taken_away(token, event.lost)
            elif job.verdict is not None and not event.lost:
                self._answer_here(job, "handover", now)
            else:
                self._drop(job)
                self._out.append(ev.Forget(token, superseded=False))

    def _on_drain(self, event: ev.Drain, now: float) -> None:
        """Nothing goes up any more: what has a prediction is answered now, what waits once it is computed."""
        self._draining = True
        for job in self._jobs:
            if job.verdict is not None and job.phase != "computing":
                self._answer_here(job, "handover", now)
        self._out.append(ev.PurgeFront())

    # --- backpressure --------------------------------------------------------------------------------------------

    def _on_back_full(self, event: ev.BackFull, now: float) -> None:
        self._back_full = event.full

    def _hold_or_resume(self) -> None:
        if self._paused:
            if not (self._back_full or self._draining or self._reaches(2)):
                self._paused = False
                self._out.append(ev.Resume())
        elif self._back_full or self._draining or self._reaches(1):
            self._paused = True
            self.counters["paused"] += 1
            self._out.append(ev.Pause())

    def _reaches(self, part: int) -> bool:
        """Whether anything that is bounded here is at its bound, or above half of it (`part` 2)."""
        limits, over = self._limits, part - 1
        return (
            len(self._queue) >= limits.backlog // part + over
            or self.unsettled >= limits.unsettled // part + over
            or self.held_bytes >= limits.held_bytes // part + over
        )

    def _take_effects(self) -> list[ev.Effect]:
        out, self._out = self._out, []
        return out


def _malformed(event: ev.Came, code: str, text: str) -> ev.Malformed:
    request = event.request
    return ev.Malformed(event.token, request.id, event.reply_to, event.correlation, code, text, request.body_bytes)
