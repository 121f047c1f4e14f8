"""What a broker's clock shows, learned from our own sends.

A broker stamps a message between our send and its acknowledgement, so the middle of the two
is off by at most half the round trip (Cristian, 1989); the shortest round trip of the
last few says it best.
"""

from __future__ import annotations

from collections import deque

SAMPLES = 32
SET_S = 0.05
"""Two round trips that disagree by more are of two clocks: it was set in between. Brokers' clocks may be less apart."""


class ClockOffset:
    """Estimates broker time minus own time, in seconds.

    Own times are of the monotonic clock, which nobody sets; the broker's are since the epoch.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES)
        self._best: tuple[float, float] | None = None

    @property
    def known(self) -> bool:
        """Whether there is an estimate yet."""
        return self._best is not None

    def observe(self, sent_s: float, acknowledged_s: float, appended_s: float) -> None:
        """One send of ours, by our clock, and when the broker appended it, by its own."""
        round_trip_s, offset_s = acknowledged_s - sent_s, appended_s - (sent_s + acknowledged_s) / 2
        if self._best is not None and abs(offset_s - self._best[1]) > (round_trip_s + self._best[0]) / 2 + SET_S:
            self._samples.clear()  # else requests were taken for too old, or for new, until these are forgotten
        self._samples.append((round_trip_s, offset_s))
        self._best = min(self._samples)

    def age_s(self, appended_s: float, now_s: float) -> float:
        """How long ago the broker appended a message; 0 while its clock is not known, and never negative."""
        if self._best is None:
            return 0.0
        return max(0.0, now_s + self._best[1] - appended_s)
