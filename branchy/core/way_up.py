"""The way up: who may be forwarded, who waits for the front, and what the front's answers teach."""

from __future__ import annotations

from collections import OrderedDict
from itertools import count

from branchy.core.breaker import Breaker, Ticket
from branchy.core.deadline import RoundTrips
from branchy.core.jobs import Job

LATE_KEPT = 4096
"""How many given-up forwards are remembered, to learn the round trip from their late answers."""


class WayUp:
    """The pending table of a tier, with the breaker and the round-trip estimate that guard it.

    Args:
        window_s: sliding window of the breaker.
        probe_s: how often one goes up although there seems to be no use.
        limit: most requests that wait for the front.
        prefix: makes this process' correlations differ from any other's.
    """

    def __init__(self, window_s: float, probe_s: float, limit: int, prefix: bytes) -> None:
        self.breaker = Breaker(window_s, probe_s)
        self.round_trips = RoundTrips()
        self._window_s, self._probe_s = window_s, probe_s
        self._limit = limit
        self._prefix = prefix
        self._numbers = count()
        self._pending: dict[bytes, Job] = {}
        self._given_up: OrderedDict[bytes, tuple[float, int]] = OrderedDict()
        self._next_probe = 0.0
        self._heard_at = 0.0

    def __len__(self) -> int:
        """How many wait for the front."""
        return len(self._pending)

    @property
    def full(self) -> bool:
        """Whether no more may wait."""
        return len(self._pending) >= self._limit

    def admit(self, budget_s: float, now: float) -> Ticket | None:
        """Leave to go up: there is time for a typical round trip, and the breaker agrees; else None."""
        if budget_s <= 0:
            return None
        typical, most = self.round_trips.quantile(0.5), self.round_trips.quantile(0.95)
        if typical is not None and budget_s < typical:
            # The estimate may be of a bad spell that is over: now and then one goes up to find out.
            if now < self._next_probe:
                return None
            self._next_probe = now + self._probe_s
        # Of a front that is dead nothing new is learnt: an estimate of a bad spell before would keep its failures
        # from ever counting.
        silent = now - self._heard_at > self._window_s
        return self.breaker.admit(now, counts=most is None or budget_s >= most or silent)

    def begin(self, job: Job, ticket: Ticket, now: float) -> bytes:
        """The job waits for the front from now on; returns the fresh correlation it goes up with."""
        job.up = self._prefix + next(self._numbers).to_bytes(8, "big")
        job.phase, job.ticket, job.sent_at = "pending", ticket, now
        self._pending[job.up] = job
        return job.up

    def job(self, correlation: bytes) -> Job | None:
        """Who waits for that answer."""
        return self._pending.get(correlation)

    def answered(self, job: Job, now: float) -> None:
        """The front answered in time; where the estimate left no time for that, the spell that it is of is over.

        Then the estimate starts anew. It would take as many probes as there were late answers to outweigh them.
        """
        typical = self.round_trips.quantile(0.5)
        if typical is not None and job.deadline.answer_by - job.sent_at < typical:
            self.round_trips = RoundTrips()
        self._observe(now - job.sent_at, now)
        self.breaker.record(job.ticket, True, now)

    def failed(self, job: Job, now: float) -> None:
        """The front did not answer in time, or its brokers were not reached."""
        self.breaker.record(job.ticket, False, now)

    def answered_late(self, correlation: bytes, now: float) -> bool:
        """An answer nobody waits for: learn from it; False when nobody ever asked.

        Nothing is learnt from a forward of before the breaker's last change: it tells how long the front
        was away, and a burst of such answers from one that is back would keep everybody from going up.
        """
        if correlation not in self._given_up:
            return False
        sent_at, epoch = self._given_up.pop(correlation)
        if epoch == self.breaker.epoch:
            self._observe(now - sent_at, now)
        return True

    def _observe(self, seconds: float, now: float) -> None:
        self._heard_at = now
        self.round_trips.observe(seconds)

    def end(self, job: Job) -> None:
        """The job waits no more."""
        del self._pending[job.up]
        self._given_up[job.up] = (job.sent_at, job.ticket.epoch)
        if len(self._given_up) > LATE_KEPT:
            self._given_up.popitem(last=False)
