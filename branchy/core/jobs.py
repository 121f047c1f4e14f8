"""Requests on their way through a tier, and the queue of those that wait to be computed."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Hashable
from itertools import count
from typing import Literal

from branchy.core.breaker import Ticket
from branchy.core.cascade import Array
from branchy.core.deadline import Deadline
from branchy.core.messages import EncodedSample, Hop
from branchy.core.policies import Verdict
from branchy.core.tier_events import Came

Phase = Literal["waiting", "computing", "pending", "done"]
Key = tuple[Hashable, str, str]


class Job:
    """One request on its way through this tier.

    Attributes:
        token, correlation, deadline: of its newest delivery.
        asked: when it was put into the tier's queue, on the tier's clock, as far as its age is known.
        input: what the stage at `position` (of the tier's own) takes.
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
        "input",
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
        self.reply_to = event.reply_to
        self.correlation = event.correlation
        self.deadline = deadline
        self.input = first_input
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
        self.ticket = Ticket(-1, counts=False)
        self.sent_at = 0.0

    @property
    def key(self) -> Key:
        """What makes it the same request: who asks, the request's id, and the stage."""
        return (self.reply_to, self.request.id, self.request.stage)

    @property
    def ended(self) -> bool:
        """Whether it was answered, dead-lettered or forgotten: what still refers to it lets it go."""
        return self.phase == "done"

    @property
    def due(self) -> float:
        """When it must end: with a prediction to fall back to, in time for the way back."""
        return self.deadline.expires if self.verdict is None else self.deadline.answer_by

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
    """Jobs that wait to be computed, earliest deadline first; a batch is of one stage of one model."""

    def __init__(self) -> None:
        self._heaps: defaultdict[tuple[str, int], list[tuple[float, int, Job]]] = defaultdict(list)
        self._numbers = count()
        self._waiting = 0
        self._running = 0
        self._item_s = 0.0

    def __len__(self) -> int:
        """How many wait."""
        return self._waiting

    def oldest(self) -> float | None:
        """When the one that waits longest was asked for; None when none waits."""
        waiting = (job.asked for heap in self._heaps.values() for _, _, job in heap if job.phase == "waiting")
        return min(waiting, default=None)

    def push(self, job: Job) -> None:
        """Let a job wait for the stage at its position."""
        job.phase = "waiting"
        self._waiting += 1
        group = self._heaps[job.request.model, job.position]
        heapq.heappush(group, (job.deadline.expires, next(self._numbers), job))

    def discard(self) -> None:
        """One waiting job ended some other way (its phase says so)."""
        self._waiting -= 1

    def take(self, most: int) -> list[Job]:
        """The next batch, of the group whose first job is the most urgent; they are computing now."""
        for group in self._heaps.values():
            while group and group[0][2].phase != "waiting":
                heapq.heappop(group)
        groups = [g for g in self._heaps.values() if g]
        if not groups:
            return []
        group = min(groups, key=lambda g: g[0][:2])
        batch: list[Job] = []
        while group and len(batch) < most:
            job = heapq.heappop(group)[2]
            if job.phase == "waiting":
                job.phase = "computing"
                batch.append(job)
        self._waiting -= len(batch)
        self._running += len(batch)
        return batch

    def computed(self, jobs: int, seconds: float) -> None:
        """A batch of so many jobs took so long."""
        self._running -= jobs
        item_s = seconds / jobs
        self._item_s = item_s if self._item_s == 0.0 else 0.8 * self._item_s + 0.2 * item_s

    def wait_s(self) -> float:
        """Estimate of how long one that comes now waits and computes, in seconds.

        0 when nothing is ahead of it: one is always let in, or a single slow batch would shut the tier for ever.
        """
        ahead = self._waiting + self._running
        return (ahead + 1) * self._item_s if ahead else 0.0
