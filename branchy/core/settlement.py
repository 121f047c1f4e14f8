"""Which offsets may be committed: everything below the lowest unsettled one, and never more.

Keyed by assignment (topic, partition and epoch), because a broker accepts a commit for a
partition that a member no longer owns. Offsets have gaps (compaction, transaction markers)
and settle in any order.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class _Assignment:
    __slots__ = ("heap", "open", "settled_up_to")

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.heap: list[int] = []
        self.settled_up_to: int | None = None

    def track(self, position: int) -> None:
        self.open.add(position)
        heapq.heappush(self.heap, position)

    def settle(self, position: int) -> None:
        self.open.discard(position)
        while self.heap and self.heap[0] not in self.open:
            self.settled_up_to = heapq.heappop(self.heap)

    def committable(self) -> int | None:
        if self.settled_up_to is None:
            return None
        return self.heap[0] if self.heap else self.settled_up_to + 1


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
