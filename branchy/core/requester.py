"""What a requester decides, without I/O or clock: which answer belongs to which request, and when to send.

A `Requester` is told what is sent (`send`), what came (`take`), what the broker refused (`refuse`) and
that time has passed (`advance`). Whatever comes, in whatever order: each request gets exactly one `Outcome`.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Literal

from branchy.core.messages import Answer
from branchy.errors import UsageError

MAX_IN_FLIGHT = 4096
"""Most requests in flight at a fixed rate: a system that has stopped answering must not fill this one's memory."""
LATE_KEPT = 4096
"""How many given-up requests are remembered, to tell their late answers from duplicates."""
_NUMBER_BYTES = 8

Word = Literal["duplicates", "late", "foreign", "garbage", "stray"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The one end of a request.

    Attributes:
        request: its id (`branchy-request`).
        index: the sample's, as the caller counts them.
        latency_s: from the moment it was meant to be sent to this outcome. Where a schedule says
            when to send, waiting for a turn counts, so that a slow system cannot hide its delays by
            being asked less often (coordinated omission).
        answer: None when none came in time that may be handed on.
        fault: then why, for a person.
        bytes_sent: headers and body of the request.
    """

    request: str
    index: int
    latency_s: float
    answer: Answer | None
    fault: str | None = None
    bytes_sent: int = 0


@dataclass(slots=True)
class _Pending:
    request: str
    index: int
    intended_s: float
    give_up_s: float
    fault: str
    bytes_sent: int


class Requester:
    """Pairs answers with requests.

    Args:
        model: the digest that an answer must be of.
        labels: the classes; an answer's index and label must fit them.
        tiers: the names that an answering tier may have.
        prefix: marks this requester's correlations; fresh random bytes.
        timeout_s: how long after it was sent a request is given up.

    `counters` has, of the answers that were not handed on: `duplicates` and `late` (of requests that
    have their outcome), `foreign` (of another model), `garbage` (unreadable, or not an answer to this
    request), `stray` (not to a request of this requester: reply topics may be shared).
    """

    def __init__(
        self, *, model: str, labels: tuple[str, ...], tiers: frozenset[str], prefix: bytes, timeout_s: float
    ) -> None:
        self.counters: Counter[Word] = Counter()
        self._model, self._labels, self._tiers = model, labels, tiers
        self._prefix, self._timeout_s = prefix, timeout_s
        self._sent = 0
        self._pending: OrderedDict[int, _Pending] = OrderedDict()  # all have the same time-out: the oldest is first
        self._given_up: OrderedDict[int, None] = OrderedDict()

    @property
    def in_flight(self) -> int:
        """Requests without an outcome yet."""
        return len(self._pending)

    @property
    def wakeup(self) -> float | None:
        """When to call `advance` at the latest, in seconds of the caller's clock."""
        return next(iter(self._pending.values())).give_up_s if self._pending else None

    def send(self, request: str, index: int, *, now: float, intended_s: float, bytes_sent: int = 0) -> bytes:
        """A request is about to be sent; returns the correlation that marks its answer.

        Args:
            request: its id.
            index: the sample's.
            now: the caller's clock, which never goes back.
            intended_s: when it was meant to be sent; what latency counts from.
            bytes_sent: headers and body.
        """
        number, self._sent = self._sent, self._sent + 1
        self._pending[number] = _Pending(
            request, index, intended_s, now + self._timeout_s, f"no answer within {self._timeout_s:g} s", bytes_sent
        )
        return self._prefix + number.to_bytes(_NUMBER_BYTES, "big")

    def take(self, correlation: bytes | None, answer: Answer | None, now: float) -> Outcome | None:
        """An answer came (None: one that cannot be read); returns the outcome where it makes one."""
        number = self._number(correlation)
        if number is None:
            self.counters["stray"] += 1
            return None
        pending = self._pending.get(number)
        if pending is None:
            self.counters["late" if number in self._given_up else "duplicates"] += 1
            return None
        if answer is None or answer.request != pending.request:
            self._discard(pending, "only an unreadable answer came")
            return None
        if answer.status == "ok" and answer.model != self._model:
            self.counters["foreign"] += 1
            fault = f"the answer is of another model: expected {self._model:.12}, got {answer.model!r:.20}"
            return self._end(number, now, None, fault)
        if not self._fits(answer):
            self._discard(pending, "only an answer came that names no tier or class of this cascade")
            return None
        return self._end(number, now, answer)

    def refuse(self, correlation: bytes, text: str, now: float) -> Outcome | None:
        """The broker did not take a request; returns its outcome, None when it has had one."""
        number = self._number(correlation)
        if number is None or number not in self._pending:
            return None
        return self._end(number, now, None, text)

    def advance(self, now: float) -> list[Outcome]:
        """Give up the requests whose time is over."""
        outcomes = []
        while (due_s := self.wakeup) is not None and due_s <= now:
            number, pending = next(iter(self._pending.items()))
            outcomes.append(self._end(number, now, None, pending.fault))
        return outcomes

    def _number(self, correlation: bytes | None) -> int | None:
        """The number of the request that a correlation marks; None when it is none of this requester's."""
        if correlation is None or len(correlation) != len(self._prefix) + _NUMBER_BYTES:
            return None
        number = int.from_bytes(correlation[len(self._prefix) :], "big")
        return number if correlation.startswith(self._prefix) and number < self._sent else None

    def _fits(self, answer: Answer) -> bool:
        """Whether an answer names a tier and, where it has a label, a class of this cascade."""
        if answer.tier not in self._tiers:
            return False
        if answer.index is None:
            return answer.status != "ok"
        return 0 <= answer.index < len(self._labels) and answer.label == self._labels[answer.index]

    def _discard(self, pending: _Pending, fault: str) -> None:
        """Count what cannot be handed on; a good answer may still come."""
        self.counters["garbage"] += 1
        pending.fault = fault

    def _end(self, number: int, now: float, answer: Answer | None, fault: str | None = None) -> Outcome:
        pending = self._pending.pop(number)
        if answer is None:
            self._given_up[number] = None
            if len(self._given_up) > LATE_KEPT:
                self._given_up.popitem(last=False)
        return Outcome(pending.request, pending.index, now - pending.intended_s, answer, fault, pending.bytes_sent)


class Schedule:
    """When the next request is sent: as the window has room (closed loop), or at a fixed rate (open loop).

    Args:
        window: most requests in flight; not with a rate.
        rate: requests a second, whatever comes back, up to `limit` in flight.
        limit: most requests in flight at a rate; `capped` counts the requests that had to wait for it.

    Raises:
        UsageError: a window below 1, a rate that is not above 0, or both given.
    """

    def __init__(self, window: int | None = None, rate: float | None = None, *, limit: int = MAX_IN_FLIGHT) -> None:
        if window is not None and rate is not None:
            raise UsageError(
                "expected a window or a rate, got both; a window sends as answers come, a rate on schedule"
            )
        if window is not None and window < 1:
            raise UsageError(f"window: expected at least 1 request in flight, got {window}")
        if rate is not None and not 0 < rate < math.inf:
            raise UsageError(f"rate: expected requests a second above 0, got {rate:g}")
        self.capped = 0
        self._rate = rate
        self._start_s: float | None = None
        self._limit = limit if rate is not None else window or 1
        self._sent = 0
        self._was_capped = False

    def wait_s(self, now: float, in_flight: int) -> float | None:
        """Seconds until the next request is due, 0 when it is; None when an outcome has to come first.

        A rate's schedule starts with the first call.
        """
        due_s = self._due_s(now)
        if due_s > now:
            return due_s - now
        if in_flight < self._limit:
            return 0.0
        if self._rate is not None and not self._was_capped:
            self._was_capped = True
            self.capped += 1
        return None

    def send(self, now: float) -> float:
        """The next request is sent; returns when it was meant to be."""
        intended_s = self._due_s(now)
        self._sent += 1
        self._was_capped = False
        return intended_s

    def _due_s(self, now: float) -> float:
        if self._rate is None:
            return now
        if self._start_s is None:
            self._start_s = now
        return self._start_s + self._sent / self._rate
