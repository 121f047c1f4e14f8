"""A member of a group, as `branchy.transport.kafka.source` is one: tracks, commits, hands over."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from threading import Event

from branchy.core.settlement import SettlementTracker
from branchy.transport.base import Arrived, Delivery, Revoked, Sink
from simulation.broker import Assignment, Fetcher, Group, Record, Token
from simulation.network import Link
from simulation.producer import LearntClock
from simulation.world import Act, World, require

COMMIT_EVERY_S = 0.2
REVOKE_WAIT_S = 1.0
DRIFT_S = 0.01
"""How far a clock runs off between two looks at another, at most."""


class Consumer:
    """A `RequestSource` on a simulated broker.

    Args:
        name: of the process and its incarnation.
        clock: what the broker's clock shows, as the process has learnt it.
        monotonic: the process' own clock.
    """

    def __init__(
        self,
        world: World,
        name: str,
        group: Group,
        link: Link,
        sink: Sink,
        clock: LearntClock,
        monotonic: Callable[[], float],
    ) -> None:
        self.name, self.link, self.dead = name, link, False
        self._world, self._group, self._sink = world, group, sink
        self._clock, self._monotonic = clock, monotonic
        self._tracker: SettlementTracker[Assignment] = SettlementTracker()
        self._fetchers: dict[Assignment, Fetcher] = {}
        self._leaving: dict[Assignment, Event] = {}
        self._given_up: set[tuple[int, int]] = set()
        self._committed: dict[Assignment, int] = {}
        self._commit_due = self._paused = False
        self._outage = 0
        self._on_the_way: deque[Act] = deque()
        link.when_changed.append(self._link_changed)

    # --- what a tier calls -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Join the group."""
        self._tell(partial(self._group.join, self))

    def settle(self, token: Token) -> None:
        """Finished: commit soon."""
        if self._tracker.settle(*token) and not self._commit_due:
            self._commit_due = True
            self._world.after(COMMIT_EVERY_S, self._commit)

    def pause(self) -> None:
        """Fetch nothing more."""
        self._set_paused(True)

    def resume(self) -> None:
        """Fetch again."""
        self._set_paused(False)

    def unsettled(self) -> int:
        """Deliveries not settled yet."""
        return self._tracker.unsettled

    def close(self) -> None:
        """Commit, leave."""
        positions = dict(self._tracker.committables())
        self.kill()

        def leave() -> None:
            for assignment, position in positions.items():
                self._group.commit(self, assignment.partition, position)
            self._group.leave(self)

        self._tell(leave)

    def kill(self) -> None:
        """Gone, without a word to the group."""
        self.dead = True
        self.link.when_changed.remove(self._link_changed)
        for fetcher in self._fetchers.values():
            fetcher.close()

    def _tell(self, act: Act) -> None:
        """To the group's coordinator: one connection, so in order, however late."""
        self._on_the_way.append(act)
        self.link.out.carry(lambda: self._on_the_way.popleft()())

    # --- what the group says -----------------------------------------------------------------------------------------

    def assigned(self, partition: int, epoch: int) -> None:
        """A partition is this member's, from the committed offset on."""
        if self.dead or not self._group.owns(self, partition, epoch) or (partition, epoch) in self._given_up:
            return
        assignment = Assignment(self._group.topic.name, partition, epoch)
        position = self._group.committed[partition]
        take = partial(self._take, assignment)
        fetcher = Fetcher(self._world, self.link, self._group.topic, partition, position, take)
        self._fetchers[assignment] = fetcher
        if self._paused:
            fetcher.pause(True)

    def revoked(self, partition: int, epoch: int) -> None:
        """A partition is to go to another: once what is open of it is answered, or a second is over."""
        if self.dead:
            return
        self._given_up.add((partition, epoch))
        assignment = Assignment(self._group.topic.name, partition, epoch)
        fetcher = self._fetchers.pop(assignment, None)
        if fetcher is not None:
            fetcher.close()
        tokens = self._open(assignment)
        self._leaving[assignment] = done = Event()
        if not tokens:
            done.set()
        else:
            self._world.say(self.name, "is to hand over %d:%d with %d open", partition, epoch, len(tokens))
            self._world.after(REVOKE_WAIT_S, partial(self._release, assignment))
            self._sink(Revoked(tokens, done))
        self.look()

    def look(self) -> None:
        """Give up what the tier has let go of (its process calls this after each step)."""
        for assignment, done in list(self._leaving.items()):
            if done.is_set():
                self._release(assignment)

    def _release(self, assignment: Assignment) -> None:
        if self.dead or self._leaving.pop(assignment, None) is None:
            return
        position = self._tracker.committable(assignment)
        self._forget(assignment)

        def released() -> None:
            if position is not None:
                self._group.commit(self, assignment.partition, position)
            self._group.released(self, assignment.partition, assignment.epoch)

        self._tell(released)

    def _expelled(self) -> None:
        """The session is over: everything is lost, and the group is joined anew."""
        if self.dead or self._group.has(self):
            return
        lost = [*self._fetchers, *self._leaving]
        tokens = frozenset(token for assignment in lost for token in self._open(assignment))
        for assignment in lost:
            if assignment in self._fetchers:
                self._fetchers.pop(assignment).close()
            self._leaving.pop(assignment, None)
            self._given_up.add((assignment.partition, assignment.epoch))
            self._forget(assignment)
        if tokens:
            self._world.say(self.name, "has lost %d deliveries", len(tokens))
            self._sink(Revoked(tokens, Event(), lost=True))
        self.start()

    def _link_changed(self, up: bool) -> None:
        self._outage += 1
        if up:
            self.link.back.carry(self._expelled)
        else:
            outage = self._outage
            self._group.suspect(self, lambda: self._outage == outage)

    # --- deliveries and commits --------------------------------------------------------------------------------------

    def _take(self, assignment: Assignment, start: int, records: list[Record]) -> None:
        deliveries = []
        for offset, record in enumerate(records, start):
            if self._tracker.track(assignment, offset):
                age_s = self._age_s(record)
                token = Token(assignment, offset)
                deliveries.append(Delivery(token, record.message, age_s, record.reply_to, record.correlation))
        if deliveries:
            self._sink(Arrived(deliveries))

    def _age_s(self, record: Record) -> float:
        """As the process knows it: off by half a round trip at most, unless the broker's clock was set meanwhile."""
        age_s = self._clock.age_s(record.appended_s, self._monotonic())
        off_s = age_s - (self._world.now - record.at_s)
        record.missed_s = max(record.missed_s, -off_s)
        if self._clock.clock == record.clock == self._group.broker.clock:
            most_s = self._clock.worst_s / 2 + DRIFT_S
            require(abs(off_s) <= most_s, "age", "%s is off by %.3f s", self.name, off_s)
        return age_s

    def _commit(self) -> None:
        self._commit_due = False
        if self.dead:
            return
        for assignment, position in self._tracker.committables().items():
            if self._committed.get(assignment) != position:
                self._committed[assignment] = position
                self._tell(partial(self._group.commit, self, assignment.partition, position))

    def _open(self, assignment: Assignment) -> frozenset[Token]:
        return frozenset(Token(assignment, offset) for offset in self._tracker.open(assignment))

    def _forget(self, assignment: Assignment) -> None:
        self._tracker.forget(assignment)
        self._committed.pop(assignment, None)

    def _set_paused(self, paused: bool) -> None:
        self._paused = paused
        for fetcher in self._fetchers.values():
            fetcher.pause(paused)
