"""Which offsets may be committed: everything below the lowest unsettled one, and never more.

Keyed by assignment (topic, partition and epoch), because a broker accepts a commit for a
partition that a member no longer owns. Offsets have gaps (compaction, transaction markers)
and settle in any order. What is held is bounded by what is open, however much is settled behind it.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


SETTLED_KEPT = 64
"""Settled positions above the lowest open one are swept out when there are so many more than open ones."""


class _Assignment:
    """One assignment's positions.

    Attributes:
        open: those that are not settled.
        heap: the same and some that are settled, an open one in front.
        last: the highest ever tracked.
        begun: whether the lowest was ever settled, so that there is something to commit.
    """

    __slots__ = ("begun", "heap", "last", "open")

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.heap: list[int] = []
        self.last = -1
        self.begun = False

    def track(self, position: int) -> None:
        self.open.add(position)
        heapq.heappush(self.heap, position)
        if position > self.last:
            self.last = position

    def settle(self, position: int) -> None:
        still_open, heap = self.open, self.heap
        still_open.discard(position)
        while heap and heap[0] not in still_open:
            heapq.heappop(heap)
            self.begun = True
        if len(heap) > 2 * len(still_open) + SETTLED_KEPT:
            self.heap = sorted(still_open)

    def committable(self) -> int | None:
        if not self.begun:
            return None
        return self.heap[0] if self.heap else self.last + 1


class SettlementTracker(Generic[K]):
    """Deliveries that were handed out and those that are finished, by assignment.

    Not thread-safe: the owner holds a lock around it.
    """

    def __init__(self) -> None:
        self._assignments: dict[K, _Assignment] = {}
        self._unsettled = 0

    def track(self, assignment: K, position: int) -> bool:
        """A delivery is being handed out; False for one that is open already."""
        entry = self._assignments.get(assignment)
        if entry is None:
            entry = self._assignments[assignment] = _Assignment()
        if position in entry.open:
            return False
        entry.track(position)
        self._unsettled += 1
        return True

    def settle(self, assignment: K, position: int) -> bool:
        """A delivery is finished; False for one that is not open (unknown, repeated, forgotten)."""
        entry = self._assignments.get(assignment)
        if entry is None or position not in entry.open:
            return False
        entry.settle(position)
        self._unsettled -= 1
        return True

    def committable(self, assignment: K) -> int | None:
        """The position to commit (the next one to read), or None while nothing may be.

        All tracked positions below it are settled; it is the lowest unsettled one, or the one
        after the last where none is open.
        """
        entry = self._assignments.get(assignment)
        return None if entry is None else entry.committable()

    def committables(self) -> Mapping[K, int]:
        """`committable` of every assignment that has one."""
        found = ((key, entry.committable()) for key, entry in self._assignments.items())
        return {key: position for key, position in found if position is not None}

    def open(self, assignment: K) -> frozenset[int]:
        """The positions of an assignment that are not settled yet."""
        entry = self._assignments.get(assignment)
        return frozenset() if entry is None else frozenset(entry.open)

    def forget(self, assignment: K) -> None:
        """The assignment is over: its positions are neither open nor committable any more."""
        entry = self._assignments.pop(assignment, None)
        if entry is not None:
            self._unsettled -= len(entry.open)

    @property
    def unsettled(self) -> int:
        """How many deliveries are open, over all assignments."""
        return self._unsettled
