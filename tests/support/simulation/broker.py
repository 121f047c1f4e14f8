"""Brokers as a client sees them: partitioned logs that lose nothing, and groups that share them.

What an acknowledged append holds stays (three nodes, `acks=all`); what a broker can do to a client is be
away, be late, refuse, hand out again from the committed offset, and give a partition to someone else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from branchy.transport.base import Address, Message
from simulation.network import Link
from simulation.world import World, require

if TYPE_CHECKING:
    from simulation.consumer import Consumer

FETCH = 64
"""Most records of one fetch."""


class Place(NamedTuple):
    """A topic, and where it matters its partition: an address."""

    topic: str
    partition: int | None = None


class Assignment(NamedTuple):
    """A partition for as long as one member owns it."""

    topic: str
    partition: int
    epoch: int


class Token(NamedTuple):
    """A delivery. Its hash is made of numbers only: a set of them is in the same order in every process."""

    assignment: Assignment
    offset: int

    def __hash__(self) -> int:
        return hash((self.assignment.partition, self.assignment.epoch, self.offset))


class Record:
    """A message in a log.

    Attributes:
        appended_s, clock: when, by the broker's clock, and which one (it may be set); `at_s` in truth.
        done: whether it is answered, or in the dead letters, or never can be.
        missed_s: how much of its age a tier did not know, at most.
        held_back_s: how long a tier with enough in hand did not fetch it, at most.
    """

    __slots__ = (
        "appended_s",
        "at_s",
        "clock",
        "correlation",
        "done",
        "held_back_s",
        "message",
        "missed_s",
        "reply_to",
        "superseded_by",
    )

    def __init__(self, message: Message, correlation: bytes | None, reply_to: Address | None, broker: Broker) -> None:
        self.message, self.correlation, self.reply_to = message, correlation, reply_to
        self.appended_s, self.at_s, self.clock = broker.wall_s, broker.world.now, broker.clock
        self.done = False
        self.missed_s = self.held_back_s = 0.0
        self.superseded_by: Record | None = None

    @property
    def finished(self) -> bool:
        """Whether it may be committed."""
        return self.done or (self.superseded_by is not None and self.superseded_by is not self)


class Topic:
    """Logs by partition, and who waits for more of them."""

    def __init__(self, name: str, partitions: int) -> None:
        self.name = name
        self.logs: list[list[Record]] = [[] for _ in range(partitions)]
        self.readers: list[list[Fetcher]] = [[] for _ in range(partitions)]
        self.group: Group | None = None


class Broker:
    """One side's brokers, with a clock of their own.

    Attributes:
        awaited: the requests that ask for an answer, by reply address and correlation; two where a client wrote
            one twice.
        clock: how often the clock was set.
    """

    def __init__(self, world: World, name: str, ahead_s: float) -> None:
        self.world, self.name = world, name
        self.topics: dict[str, Topic] = {}
        self.awaited: defaultdict[tuple[Address, bytes], list[Record]] = defaultdict(list)
        self.clock = 0
        self._ahead_s = ahead_s

    @property
    def wall_s(self) -> float:
        """The broker's clock, seconds since the epoch."""
        return self.world.now + self._ahead_s

    def set_clock(self, by_s: float) -> None:
        """Somebody sets the clock."""
        self._ahead_s += by_s
        self.clock += 1

    def add(self, name: str, partitions: int) -> Topic:
        """Make a topic."""
        self.topics[name] = Topic(name, partitions)
        return self.topics[name]

    def knows(self, to: Address) -> bool:
        """Whether something can be sent there."""
        topic = self.topics.get(to.topic) if isinstance(to, Place) else None
        return topic is not None and (to.partition is None or to.partition < len(topic.logs))

    def append(self, to: Place, message: Message, correlation: bytes | None, reply_to: Address | None) -> Record:
        """Put a message at the end of a partition."""
        topic = self.topics[to.topic]
        record = Record(message, correlation, reply_to, self)
        if topic.group is None:
            self.answered(to, correlation)
        elif reply_to is not None and correlation is not None:
            self.awaited[reply_to, correlation].append(record)
        topic.logs[to.partition or 0].append(record)
        for reader in topic.readers[to.partition or 0]:
            reader.look()
        return record

    def answered(self, to: Address, correlation: bytes | None) -> None:
        """The request that asked for this has its answer, or never can have one."""
        for record in self.awaited.get((to, correlation or b""), ()):
            record.done = True


class Fetcher:
    """Reads one partition from a position on, while its owner wants."""

    def __init__(
        self,
        world: World,
        link: Link,
        topic: Topic,
        partition: int,
        position: int,
        take: Callable[[int, list[Record]], None],
    ) -> None:
        self._world, self._link = world, link
        self._log, self._readers = topic.logs[partition], topic.readers[partition]
        self._position, self._take = position, take
        self._paused = self._asked = False
        self._held_since: float | None = None  # the first pause since records came
        self._open = True
        self._readers.append(self)
        self.look()

    def look(self) -> None:
        """Fetch when there is something, one fetch at a time."""
        if self._open and not self._paused and not self._asked and self._position < len(self._log):
            self._asked = True
            self._link.back.carry(self._fetched)

    def pause(self, paused: bool) -> None:
        """What is under way is thrown away, as librdkafka does, or fetched on."""
        self._paused = paused
        if paused and self._held_since is None:
            self._held_since = self._world.now
        self.look()

    def close(self) -> None:
        """Stop; may be called twice."""
        if self._open:
            self._open = False
            self._readers.remove(self)

    def _fetched(self) -> None:
        self._asked = False
        if not self._open or self._paused:
            return
        start = self._position
        records = self._log[start : start + FETCH]
        self._position += len(records)
        if self._held_since is not None:
            for record in records:
                record.held_back_s = max(record.held_back_s, self._world.now - max(record.at_s, self._held_since))
            self._held_since = None
        self._take(start, records)
        self.look()


class Group:
    """Who owns which partition of a topic, and from where the next owner reads on.

    A member that is not heard of for a session is out: its partitions go to others at once, and it is told
    when it can be reached. The others are asked first, and give up what they had when they are ready.
    """

    def __init__(self, broker: Broker, topic: Topic, session_s: float) -> None:
        self.committed = [0] * len(topic.logs)
        self.broker, self.topic = broker, topic
        topic.group = self
        self._world, self._session_s = broker.world, session_s
        self._members: list[Consumer] = []
        self._owners: list[Consumer | None] = [None] * len(topic.logs)
        self._epochs = [0] * len(topic.logs)
        self._asked_back: set[int] = set()
        self._turn = 0

    def join(self, member: Consumer) -> None:
        """A member wants its share."""
        if not member.dead and member not in self._members:
            self._members.append(member)
            if not member.link.up:
                self.suspect(member, lambda: not member.link.up)
            self._share()

    def leave(self, member: Consumer) -> None:
        """A member is gone, or taken for gone."""
        if member in self._members:
            self._members.remove(member)
            for partition, owner in enumerate(self._owners):
                if owner is member:
                    self._take_back(partition)
            self._share()

    def suspect(self, member: Consumer, still: Callable[[], bool]) -> None:
        """Nothing is heard of a member: it is out unless that changes within the session."""

        def expire() -> None:
            if still() and member in self._members:
                self._world.say(self.topic.name, "%s is out of the group", member.name)
                self.leave(member)

        self._world.after(self._session_s, expire)

    def has(self, member: Consumer) -> bool:
        """Whether it is a member still."""
        return member in self._members

    def owns(self, member: Consumer, partition: int, epoch: int) -> bool:
        """Whether that assignment still stands."""
        return self._owners[partition] is member and self._epochs[partition] == epoch

    def released(self, member: Consumer, partition: int, epoch: int) -> None:
        """A member gave up a partition."""
        if self.owns(member, partition, epoch):
            self._take_back(partition)
            self._share()

    def rebalance(self) -> None:
        """Everything moves to the next member."""
        self._turn += 1
        self._share()

    def commit(self, member: Consumer, partition: int, position: int) -> None:
        """Any member may commit any partition, as both of Kafka's protocols have it."""
        if member not in self._members:
            return
        self._world.say(self.topic.name, "%s commits %d:%d", member.name, partition, position)
        log = self.topic.logs[partition]
        require(
            position <= len(log), "commit", "%s %d commits %d of %d", self.topic.name, partition, position, len(log)
        )
        before = self.committed[partition]
        require(
            position >= before, "commit", "%s %d goes back from %d to %d", self.topic.name, partition, before, position
        )
        for offset in range(before, position):
            require(
                log[offset].finished,
                "commit passes the unanswered",
                "%s commits %s %d up to %d, and %d is not answered",
                member.name, self.topic.name, partition, position, offset,
            )  # fmt: skip
        self.committed[partition] = position

    @property
    def owners(self) -> list[Consumer | None]:
        """By partition."""
        return list(self._owners)

    def _take_back(self, partition: int) -> None:
        self._owners[partition] = None
        self._asked_back.discard(partition)

    def _share(self) -> None:
        for partition, owner in enumerate(self._owners):
            if not self._members:
                return
            wanted = self._members[(partition + self._turn) % len(self._members)]
            if owner is None:
                self._owners[partition] = wanted
                self._epochs[partition] += 1
                self._world.say(self.topic.name, "partition %d is %s's", partition, wanted.name)
                wanted.link.back.carry(partial(wanted.assigned, partition, self._epochs[partition]))
            elif owner is not wanted and partition not in self._asked_back:
                self._asked_back.add(partition)
                owner.link.back.carry(partial(owner.revoked, partition, self._epochs[partition]))
