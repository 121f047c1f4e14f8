"""How often a value fell between bounds: counted as it comes, read now and then."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate


class Histogram:
    """Counts by upper bound (each bound included), as Prometheus does; one value costs a bisection and two additions.

    Attributes:
        bounds: upper bounds, rising; what is above the last is counted too.
        sum: of all values.
    """

    def __init__(self, bounds: Iterable[float]) -> None:
        self.bounds = tuple(bounds)
        self.sum = 0.0
        self._counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[int]:
        """How many values were at most each bound, and last how many there were."""
        return list(accumulate(self._counts))
