"""Time budgets: when a request must be answered, and how long the way up and back takes."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

from branchy.core.record import record

LONGEST_GRACE_S = 60.0
"""How long after its deadline a requester may still take an answer (`--grace-ms` of `branchy device`) at most."""


@record
class Deadline:
    """Two moments on the tier's own clock, in seconds.

    Attributes:
        expires: when the requester stops waiting.
        answer_by: when the answer must leave here, so that its way back still fits.
    """

    expires: float
    answer_by: float

    @classmethod
    def of(cls, now: float, budget_ms: float, age_s: float, way_back_s: float) -> Deadline:
        """From what arrived.

        Args:
            now: the tier's clock, in seconds.
            budget_ms: what the request had left when it was sent.
            age_s: how long it has waited in the queue since; a negative one (clocks apart) counts as none.
            way_back_s: kept for the answer's own way; at most half of what is left.
        """
        left_s = budget_ms / 1e3 - max(age_s, 0.0)
        return cls(now + left_s, now + left_s - min(way_back_s, max(left_s, 0.0) / 2))


class RoundTrips:
    """Running estimate of the front's round trip, over the last `keep` answers; late ones count too."""

    def __init__(self, keep: int = 128, minimum: int = 5) -> None:
        self._seconds: deque[float] = deque()
        self._sorted: list[float] = []
        self._keep = keep
        self._minimum = minimum

    def observe(self, seconds: float) -> None:
        """One answer came `seconds` after its request went up."""
        if len(self._seconds) == self._keep:
            del self._sorted[bisect_left(self._sorted, self._seconds.popleft())]
        self._seconds.append(seconds)
        insort(self._sorted, seconds)

    def quantile(self, q: float) -> float | None:
        """Nearest-rank quantile in seconds; None before there are enough answers to tell."""
        if len(self._seconds) < self._minimum:
            return None
        return self._sorted[max(math.ceil(q * len(self._sorted)), 1) - 1]
