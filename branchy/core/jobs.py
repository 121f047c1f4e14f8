"""Requests on their way through a tier, and the queue of those that wait to be computed."""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Hashable
from itertools import count
from typing import Literal

import numpy as np

from branchy.core.breaker import Ticket
from branchy.core.cascade import Array
from branchy.core.deadline import Deadline
from branchy.core.messages import EncodedSample, Hop
from branchy.core.policies import Verdict
from branchy.core.tier_events import Came

BATCH_S = 0.02
"""What a batch should take at most. One that gains by being larger takes less a job, and so grows."""

QUEUE_SHARE = 1 / 3
"""Most of the time left that may go by behind others that wait. A longer queue answers no more requests, only later;
the rest is for what nobody can foresee: an estimate that is wrong, and CPU that others take."""

RECENT = 9
"""A job takes the median of what it took in so many batches: one held up by the work of others says nothing."""

NOTHING = np.empty(0, np.uint8)
"""The input of a job that has none any more."""

NO_TICKET = Ticket(-1, counts=False)
"""Of a job that has not gone up."""

Phase = Literal["waiting", "computing", "pending", "done"]
Key = tuple[Hashable, bytes | None, str, str]


class Job:
    """One request on its way through this tier.

    Attributes:
        token: of its newest delivery.
        key: where its like is looked for: who asks in which attempt, the request's id, and the stage.
        model: digest of the model that it asks for.
        request: what came; gone with its payload once the job has ended, whoever still refers to the job.
        asked: when it was put into the tier's queue, on the tier's clock, as far as its age is known.
        input: what the stage at `position` (of the tier's own) takes.
        held_bytes: of the request and, where that is not the request's own, its input.
        verdict: what `exit`, the last one computed, says; None before there is one.
        up, ticket, sent_at: its forward's correlation, its leave to go up, and when it went.
    """

    __slots__ = (
        "arrived",
        "asked",
        "bytes_up",
        "compute_s",
        "correlation",
        "deadline",
        "exit",
        "held_bytes",
        "input",
        "key",
        "model",
        "phase",
        "position",
        "reply_to",
        "request",
        "sent_at",
        "started",
        "ticket",
        "token",
        "up",
        "verdict",
    )

    def __init__(self, event: Came, deadline: Deadline, first_input: Array | EncodedSample, now: float) -> None:
        self.token = event.token
        self.request = event.request
        self.model = event.request.model
        self.reply_to = event.reply_to
        self.correlation = event.correlation
        self.key: Key = (event.reply_to, event.correlation, event.request.id, event.request.stage)
        self.deadline = deadline
        self.input = first_input
        self.held_bytes = event.request.held_bytes(first_input)
        self.arrived = now
        self.asked = now - max(event.age_s, 0.0)
        self.phase: Phase = "waiting"
        self.position = 0
        self.started: float | None = None
        self.compute_s = 0.0
        self.bytes_up = 0
        self.verdict: Verdict | None = None
        self.exit: str | None = None
        self.up = b""
        self.ticket = NO_TICKET
        self.sent_at = 0.0

    def same_as(self, other: Job) -> bool:
        """Whether one answer serves both, which have one `key`: it is the same attempt at the same request.

        Ids and correlations come from outside and may collide, so the payloads are held against each other too.
        Without a correlation nothing tells whether it is the same attempt, or whose.
        """
        return self.correlation is not None and self.request.same_as(other.request)

    @property
    def ended(self) -> bool:
        """Whether it was answered, dead-lettered or forgotten: what still refers to it lets it go."""
        return self.phase == "done"

    @property
    def due(self) -> float:
        """When it must end: with a prediction to fall back to, in time for the way back."""
        return self.deadline.expires if self.verdict is None else self.deadline.answer_by

    def take(self, tensor: Array) -> int:
        """Its next input; returns how many bytes more it holds now."""
        before, self.input = self.held_bytes, tensor
        self.held_bytes = self.request.held_bytes(tensor)
        return self.held_bytes - before

    def end(self) -> None:
        """It is done: timers and batches may refer to it for long, so what is large goes now."""
        self.phase = "done"
        self.input = NOTHING
        del self.request

    def hop(self, tier: str, now: float) -> Hop:
        """What this tier did for it, as of now."""
        verdict = self.verdict
        return Hop(
            tier=tier,
            exit=self.exit,
            index=verdict.index if verdict else None,
            confidence=verdict.confidence if verdict else None,
            queue_ms=((now if self.started is None else self.started) - self.arrived) * 1e3,
            compute_ms=self.compute_s * 1e3,
            total_ms=(now - self.arrived) * 1e3,
            bytes_up=self.bytes_up,
        )


class WorkQueue:
    """Jobs that wait to be computed, by stage: an earlier stage goes first, then the earliest deadline.

    So no request waits for its first prediction behind others that have one already. A batch is
    of one stage of one model.
    """

    def __init__(self) -> None:
        self._groups: defaultdict[tuple[str, int], _Group] = defaultdict(_Group)
        self._numbers = count()
        self._waiting = 0
        self._running_s = 0.0
        self._running = 0

    def __len__(self) -> int:
        """How many wait."""
        return self._waiting

    @property
    def later(self) -> int:
        """How many of them wait for a stage behind the first."""
        return sum(group.waiting for (_, position), group in self._groups.items() if position)

    def oldest(self) -> float | None:
        """When the one that waits longest was asked for; None when none waits."""
        heaps = (group.heap for group in self._groups.values())
        return min((job.asked for heap in heaps for _, _, job in heap if job.phase == "waiting"), default=None)

    def push(self, job: Job) -> None:
        """Let a job wait for the stage at its position."""
        job.phase = "waiting"
        group = self._groups[job.model, job.position]
        group.waiting += 1
        self._waiting += 1
        heapq.heappush(group.heap, (job.deadline.expires, next(self._numbers), job))

    def discard(self, job: Job) -> None:
        """A waiting job ended some other way (its phase says so once that is over)."""
        self._groups[job.model, job.position].waiting -= 1
        self._waiting -= 1

    def take(self, most: int) -> list[Job]:
        """The next batch; its jobs are computing now.

        Of a slow stage it holds fewer than `most`, so that what comes meanwhile waits for `BATCH_S` only.
        """
        if not self._waiting:
            return []
        ready = [(position, group.first, group) for (_, position), group in self._groups.items() if group.waiting]
        group = min(ready, key=lambda one: one[:2])[2]
        if group.item_s > 0.0:
            most = min(most, max(1, int(BATCH_S / group.item_s)))
        batch: list[Job] = []
        while group.waiting and len(batch) < most:
            job = heapq.heappop(group.heap)[2]
            if job.phase == "waiting":
                job.phase = "computing"
                group.waiting -= 1
                batch.append(job)
        self._waiting -= len(batch)
        self._running += len(batch)
        self._running_s += len(batch) * group.item_s
        return batch

    def computed(self, jobs: list[Job], seconds: float) -> None:
        """From when it was taken a batch took so long."""
        group = self._groups[jobs[0].model, jobs[0].position]
        self._running -= len(jobs)
        self._running_s = self._running_s - len(jobs) * group.item_s if self._running else 0.0
        group.took(seconds / len(jobs))

    def wait_s(self, model: str, position: int) -> float:
        """Estimate of how long one that comes now to a stage waits and computes, in seconds.

        0 when nothing is ahead of it: one is always let in, or a single slow batch would shut the tier for ever.
        """
        ahead = self._ahead(position)
        if not ahead and not self._running:
            return 0.0
        return self._running_s + sum(g.waiting * g.item_s for g in ahead) + self._groups[model, position].item_s

    def fits(self, model: str, position: int, left_s: float, *, fallback: bool) -> bool:
        """Whether one that comes now to a stage is computed early enough.

        It may use all of its time where nobody else has an answer for it (no `fallback`), and behind a running batch
        alone: else none would wait for one that takes long.
        """
        share = QUEUE_SHARE if fallback and self._ahead(position) else 1.0
        return self.wait_s(model, position) <= share * left_s

    def _ahead(self, position: int) -> list[_Group]:
        return [group for (_, stage), group in self._groups.items() if stage <= position and group.waiting]


class _Group:
    """What waits for one stage of one model, and how long that takes a job."""

    __slots__ = ("heap", "item_s", "recent", "waiting")

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Job]] = []
        self.waiting = 0
        self.item_s = 0.0
        self.recent: deque[float] = deque(maxlen=RECENT)

    def took(self, item_s: float) -> None:
        """A job of its last batch took so long."""
        self.recent.append(item_s)
        self.item_s = sorted(self.recent)[len(self.recent) // 2]

    @property
    def first(self) -> tuple[float, int]:
        """The earliest deadline of a job that still waits."""
        while self.heap[0][2].phase != "waiting":
            heapq.heappop(self.heap)
        return self.heap[0][:2]
