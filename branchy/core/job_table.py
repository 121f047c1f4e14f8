"""All requests under way in a tier: by delivery, by attempt, and by when they are due."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count

from branchy.core.cascade import Array
from branchy.core.jobs import Job, Key
from branchy.core.tier_events import Token

ENDED_KEPT = 1024
"""Timers of jobs that have ended are swept out when there are so many more than four a job."""


class JobTable:
    """Who is under way here, and whose turn it is to end.

    Attributes:
        held_bytes: of their bodies and inputs.
    """

    def __init__(self) -> None:
        self.held_bytes = 0
        self._by_token: dict[Token, Job] = {}
        self._by_key: dict[Key, Job] = {}
        self._timers: list[tuple[float, int, Job]] = []
        self._numbers = count()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._by_token)

    def __iter__(self) -> Iterator[Job]:
        """Those of now: the table may change meanwhile."""
        return iter([*self._by_token.values()])

    def __contains__(self, token: Token) -> bool:
        """Whether a delivery is under way."""
        return token in self._by_token

    def get(self, token: Token) -> Job | None:
        """The job of a delivery."""
        return self._by_token.get(token)

    def same(self, job: Job) -> Job | None:
        """The one whose answer is this one's too."""
        older = self._by_key.get(job.key)
        return older if older is not None and older.same_as(job) else None

    def add(self, job: Job) -> None:
        """One more; under the same key the newest counts."""
        self._by_key[job.key] = self._by_token[job.token] = job
        self.held_bytes += job.held_bytes
        self.watch(job)

    def move(self, job: Job, token: Token) -> None:
        """A newer delivery takes the place of a job's own."""
        del self._by_token[job.token]
        self._by_token[token] = job
        job.token = token

    def feed(self, job: Job, tensor: Array) -> None:
        """Give a job its next input."""
        self.held_bytes += job.take(tensor)

    def remove(self, job: Job) -> None:
        """It is done; timers may refer to it for a while."""
        if self._by_key.get(job.key) is job:  # else it gave way to one that came later under the same ids
            del self._by_key[job.key]
        del self._by_token[job.token]
        self.held_bytes -= job.held_bytes
        job.end()

    def watch(self, job: Job) -> None:
        """Have it come due, at the moment that its deadline and its predictions give now."""
        if len(self._timers) > 4 * len(self._by_token) + ENDED_KEPT:
            self._timers = [timer for timer in self._timers if not timer[2].ended]
            heapq.heapify(self._timers)
        heapq.heappush(self._timers, (job.due, next(self._numbers), job))

    def due(self, now: float) -> Job | None:
        """The next that must end now; None when none must."""
        while self._timers and self._timers[0][0] <= now:
            job = heapq.heappop(self._timers)[2]
            if not job.ended:
                return job
        return None

    @property
    def next_due(self) -> float | None:
        """When the next must end; None while none is watched."""
        while self._timers and self._timers[0][2].ended:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None
