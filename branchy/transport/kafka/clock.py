"""How far a broker's clock is ahead of our own, learned from our own sends.

A broker stamps a message between our send and its acknowledgement, so the middle of the two
is off by at most half the round trip (Cristian, 1989); the shortest round trip of the
last few says it best.
"""

from __future__ import annotations

from collections import deque

SAMPLES = 32


class ClockOffset:
    """Estimates broker time minus own time. Times in seconds since the epoch."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES)
        self._offset_s: float | None = None

    @property
    def known(self) -> bool:
        """Whether there is an estimate yet."""
        return self._offset_s is not None

    def observe(self, sent_s: float, acknowledged_s: float, appended_s: float) -> None:
        """One send of ours, by our clock, and when the broker appended it, by its own."""
        round_trip_s = acknowledged_s - sent_s
        if round_trip_s < 0:
            return  # our clock was set back in between
        self._samples.append((round_trip_s, appended_s - (sent_s + acknowledged_s) / 2))
        self._offset_s = min(self._samples)[1]

    def age_s(self, appended_s: float, now_s: float) -> float:
        """How long ago the broker appended a message; 0 while its clock is not known, and never negative."""
        if self._offset_s is None:
            return 0.0
        return max(0.0, now_s + self._offset_s - appended_s)
