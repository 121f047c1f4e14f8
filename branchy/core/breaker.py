"""A circuit breaker for the way up (Nygard, "Release It!", 2007), without a clock of its own.

Closed, it counts forwards over a sliding window and opens when at least half of at least
`minimum` failed. Open, it lets one probe through every `probe_s`; a probe that is answered
closes it. Outcomes of forwards made before a change of state don't count.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

State = Literal["closed", "open"]


@dataclass(frozen=True, slots=True)
class Ticket:
    """Leave to forward once; its outcome is recorded with it.

    Attributes:
        epoch: the breaker's state, counted, at the time of the forward.
        counts: whether the outcome counts (it was given enough time); a probe's answer always does.
    """

    epoch: int
    counts: bool


class Breaker:
    """Decides whether a request may go up, from what became of those before it.

    Attributes:
        state: whether requests go up, or only probes do.
        epoch: counts the changes of state.
        opened_by: how many failed of how many outcomes when it last opened.
    """

    def __init__(self, window_s: float = 10.0, probe_s: float = 2.0, minimum: int = 20, share: float = 0.5) -> None:
        self._window_s = window_s
        self._probe_s = probe_s
        self._minimum = minimum
        self._share = share
        self._outcomes: deque[tuple[float, bool]] = deque()
        self._failed = 0
        self._next_probe = 0.0
        self.state: State = "closed"
        self.epoch = 0
        self.opened_by = (0, 0)

    def admit(self, now: float, *, counts: bool) -> Ticket | None:
        """A ticket for one forward, None when the request must not go up now.

        Args:
            now: seconds on the caller's clock.
            counts: whether this forward has at least the time that most round trips need, so that
                its failure says something of the front.
        """
        if self.state == "open":
            if now < self._next_probe:
                return None
            self._next_probe = now + self._probe_s
        return Ticket(self.epoch, counts)

    def record(self, ticket: Ticket, ok: bool, now: float) -> None:
        """What became of a forward; may change the state."""
        if ticket.epoch != self.epoch:
            return
        if self.state == "open":
            if ok:
                self._change("closed")
            return
        if not ticket.counts:
            return
        self._outcomes.append((now, ok))
        self._failed += not ok
        while self._outcomes[0][0] < now - self._window_s:
            self._failed -= not self._outcomes.popleft()[1]
        if len(self._outcomes) >= self._minimum and self._failed >= self._share * len(self._outcomes):
            self.opened_by = (self._failed, len(self._outcomes))
            self._change("open")
            self._next_probe = now + self._probe_s

    def _change(self, state: State) -> None:
        self.state = state
        self.epoch += 1
        self._outcomes.clear()
        self._failed = 0
