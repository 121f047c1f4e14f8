"""The demo's second pass as decisions: when the cloud is killed, when enough was seen, when it is back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from branchy.core.messages import Reason
from branchy.reports.csv import Row

Step = Literal["kill", "restart", "finish"]
"""What is to be done now: kill the last tier, start it again, send no more."""

_AFTER: Mapping[Step, Step | None] = {"kill": "restart", "restart": "finish", "finish": None}


@dataclass
class Outage:
    """Follows the answers of a pass during which the last tier dies and comes back.

    Attributes:
        last_tier: the tier that is killed.
        kill_after: how many answers come before it is killed.
        enough_wanted: how many requests must want it while it is dead.
        enough_back: how many answers it must give once it is back.
        wanted: the rows of the requests that wanted it in vain: no exit on their way was sure.
        answers_back: how many answers it has given since it was started again.
    """

    last_tier: str
    kill_after: int
    enough_wanted: int = 100
    enough_back: int = 10
    wanted: list[Row] = field(default_factory=list)
    answers_back: int = 0
    _seen: int = 0
    _next: Step | None = "kill"

    @property
    def is_over(self) -> bool:
        """Whether all has been seen, so that no more need be sent."""
        return self._next is None

    @property
    def goal(self) -> int:
        """What `progress` comes to when all has been seen."""
        return self.kill_after + self.enough_wanted + self.enough_back

    @property
    def progress(self) -> int:
        """How much of what is to be seen has been, in answers and vain requests."""
        parts = (
            (self._seen, self.kill_after),
            (len(self.wanted), self.enough_wanted),
            (self.answers_back, self.enough_back),
        )
        return sum(min(seen, enough) for seen, enough in parts)

    def take(self, row: Row) -> Step | None:
        """Count a request's end; says what is to be done now, if anything."""
        self._seen += 1
        if self._next != "kill" and is_in_vain(row):
            self.wanted.append(row)
        if self._next == "finish" and (row.tier, row.reason) == (self.last_tier, "final"):
            self.answers_back += 1
        return self._step()

    def answered_by(self) -> Mapping[tuple[str, Reason], int]:
        """Who answered those that wanted the last tier in vain, and why; the unanswered are not in it."""
        return Counter((row.tier, row.reason) for row in self.wanted if row.tier and row.reason)

    def _step(self) -> Step | None:
        step = self._next
        if step is None or not self._is_due(step):
            return None
        self._next = _AFTER[step]
        return step

    def _is_due(self, step: Step) -> bool:
        if step == "kill":
            return self._seen >= self.kill_after
        if step == "restart":
            return len(self.wanted) >= self.enough_wanted
        return self.answers_back >= self.enough_back


def is_in_vain(row: Row) -> bool:
    """Whether a request wanted a tier further on and had no answer from there: neither sure nor final."""
    return row.reason not in ("confident", "final")
