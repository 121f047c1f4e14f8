"""A transport within one process, for tests and for trying a tier without a broker.

`MemoryBroker` holds the queues; `link(name)` gives a link on it. An event reaches its sink
from the thread that caused it, with the broker's (re-entrant) lock held: a sink that only
queues, as the contract asks, is always fine. The broker can be taken down and up, a
consumer killed or made to lose its share, and faults put in.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from branchy.errors import BrokerUnavailableError, TransportError
from branchy.transport.base import (
    Address,
    Arrived,
    Capabilities,
    Delivery,
    LinkState,
    Message,
    Replied,
    Revoked,
    SendError,
    Sent,
    Sink,
    Token,
)

REVOKE_WAIT_S = 1.0
BATCH = 256
"""Most deliveries of one `Arrived`."""


class MemoryAddress(NamedTuple):
    """A queue by its topic name, or with `replica` the reply inbox of that replica."""

    topic: str
    replica: str | None = None


@dataclass(frozen=True, slots=True)
class _Stored:
    """A message in a queue; `position` keeps the order when it has to be handed out again."""

    position: int
    message: Message
    appended_s: float
    reply_to: Address | None
    correlation: bytes | None
    fault: str | None


class _Group:
    """Members that share a queue: what was not handed out yet, and whose turn it is."""

    def __init__(self, backlog: Iterable[_Stored]) -> None:
        self.waiting = deque(backlog)
        self.members: deque[MemorySource] = deque()

    def give_back(self, messages: Iterable[_Stored]) -> None:
        self.waiting = deque(sorted([*messages, *self.waiting], key=lambda stored: stored.position))

    def deal(self) -> dict[MemorySource, list[_Stored]]:
        """One message to each willing member in turn, while there are both."""
        hands: dict[MemorySource, list[_Stored]] = {}
        willing = deque(member for member in self.members if not member.paused)
        while self.waiting and willing:
            hands.setdefault(willing[0], []).append(self.waiting.popleft())
            willing.rotate(-1)
            self.members.rotate(-1)
        return hands


@dataclass
class _Topic:
    log: list[_Stored] = field(default_factory=list)
    groups: dict[str, _Group] = field(default_factory=dict)
    inboxes: dict[str, list[Sink]] = field(default_factory=dict)


class MemoryBroker:
    """Queues, groups and reply inboxes in memory.

    Args:
        clock: seconds; ages and time-outs are read from it.
        max_message_bytes: the largest message any queue takes.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, max_message_bytes: int = 1_000_000) -> None:
        self.clock = clock
        self.max_message_bytes = max_message_bytes
        self.up = True
        self.lock = threading.RLock()
        self.topics: dict[str, _Topic] = {}
        self.senders: list[MemorySender] = []
        self.watchers: list[tuple[str, Sink]] = []
        self.ids = itertools.count()

    def link(self, name: str) -> MemoryLink:
        """A link on this broker; `name` is what its `LinkState` events carry."""
        return MemoryLink(self, name)

    def messages(self, topic: str) -> list[Message]:
        """Every message that a topic was ever sent, the oldest first."""
        with self.lock:
            return [stored.message for stored in self.topics[topic].log]

    def put(
        self,
        topic: str,
        message: Message,
        *,
        reply_to: Address | None = None,
        correlation: bytes | None = None,
        fault: str | None = None,
    ) -> None:
        """Append to a queue as any client could; `fault` is what the transport will say of the delivery."""
        with self.lock:
            stored = _Stored(next(self.ids), message, self.clock(), reply_to, correlation, fault)
            self.topics[topic].log.append(stored)
            for group in self.topics[topic].groups.values():
                group.waiting.append(stored)
            self.deal(topic)

    def deliveries(self, messages: Iterable[_Stored]) -> list[Delivery]:
        """Messages as they are handed out now, each by a token of its own (for the links)."""
        now_s = self.clock()
        return [
            Delivery(next(self.ids), m.message, max(0.0, now_s - m.appended_s), m.reply_to, m.correlation, m.fault)
            for m in messages
        ]

    def take_down(self, detail: str = "taken down") -> None:
        """The brokers go away: nothing is delivered, sends wait until `bring_up`, or time out (`expire`)."""
        self._set_up(False, detail)

    def bring_up(self) -> None:
        """The brokers are back: sends that have not timed out and waiting messages go on."""
        with self.lock:
            self._set_up(True, "")
            self.expire()
            for sender in list(self.senders):
                sender.drain()
            for topic in self.topics:
                self.deal(topic)

    def expire(self) -> None:
        """Report the waiting sends whose time is over by the clock."""
        for sender in list(self.senders):
            sender.expire()

    def deal(self, topic: str) -> None:
        """Hand out what waits in a queue (for the links)."""
        with self.lock:
            for group in self.topics[topic].groups.values() if self.up else ():
                for member, hand in group.deal().items():
                    member.receive(hand)

    def store(
        self, to: Address, message: Message, correlation: bytes | None, reply_to: Address | None
    ) -> SendError | None:
        """Put a sent message where it goes (for the links); returns why that cannot be."""
        if not isinstance(to, MemoryAddress) or to.topic not in self.topics:
            return SendError(f"unknown address {to!r}", permanent=True)
        if message.size_bytes > self.max_message_bytes:
            text = f"expected at most {self.max_message_bytes} bytes, got {message.size_bytes}"
            return SendError(text, permanent=True, too_large=True)
        if to.replica is None:
            if reply_to is None or self._is_inbox(reply_to):
                self.put(to.topic, message, reply_to=reply_to, correlation=correlation)
            else:
                self.put(to.topic, message, correlation=correlation, fault=f"reply address {reply_to!r} is not there")
            return None
        topic = self.topics[to.topic]
        topic.log.append(_Stored(next(self.ids), message, self.clock(), reply_to, correlation, None))
        for sink in list(topic.inboxes.get(to.replica, ())):
            sink(Replied(correlation, message))
        return None

    def _is_inbox(self, address: Address) -> bool:
        return isinstance(address, MemoryAddress) and address.topic in self.topics and address.replica is not None

    def _set_up(self, up: bool, detail: str) -> None:
        with self.lock:
            if self.up != up:
                self.up = up
                for name, sink in list(self.watchers):
                    sink(LinkState(name, up, detail))


class MemorySource:
    """A consumer of a queue."""

    def __init__(self, broker: MemoryBroker, topic: str, group: str, sink: Sink) -> None:
        self.paused = False
        self._broker, self._topic, self._group, self._sink = broker, topic, group, sink
        self._open: dict[Token, _Stored] = {}
        self._joined = False

    def start(self) -> None:
        """Join the group."""
        with self._broker.lock:
            topic = self._broker.topics[self._topic]
            topic.groups.setdefault(self._group, _Group(topic.log)).members.append(self)
            self._joined = True
            self._broker.deal(self._topic)

    def wait_ready(self, timeout_s: float) -> bool:
        """True once started: a member has its share at once."""
        return self._joined

    def receive(self, hand: Sequence[_Stored]) -> None:
        """Deliver messages to the sink (for the broker)."""
        deliveries = self._broker.deliveries(hand)
        self._open.update({delivery.token: stored for delivery, stored in zip(deliveries, hand, strict=True)})
        for start in range(0, len(deliveries), BATCH):
            self._sink(Arrived(deliveries[start : start + BATCH]))

    def settle(self, token: Token) -> None:
        """Forget a delivery for good."""
        with self._broker.lock:
            self._open.pop(token, None)

    def pause(self) -> None:
        """Take nothing more."""
        self.paused = True

    def resume(self) -> None:
        """Take again."""
        with self._broker.lock:
            self.paused = False
            if self._joined:
                self._broker.deal(self._topic)

    def unsettled(self) -> int:
        """Deliveries not settled yet."""
        return len(self._open)

    @property
    def lag(self) -> int | None:
        """Its part of what waits, as it would be dealt now; None outside of the group."""
        with self._broker.lock:
            if not self._joined:
                return None
            group = self._broker.topics[self._topic].groups[self._group]
            return -((group.members.index(self) - len(group.waiting)) // len(group.members))

    def revoke(self, *, lost: bool = False, wait_s: float = REVOKE_WAIT_S) -> None:
        """Take this member's share away, as a rebalance does; what stays unsettled is handed out again."""
        done = threading.Event()
        with self._broker.lock:
            tokens = frozenset(self._open)
        self._sink(Revoked(tokens, done, lost))
        if not lost:
            done.wait(wait_s)
        with self._broker.lock:
            left = [self._open.pop(token) for token in tokens if token in self._open]
            self._broker.topics[self._topic].groups[self._group].give_back(left)
            self._broker.deal(self._topic)

    def close(self) -> None:
        """Leave the group, by a clean end or a kill: what is not settled goes to the others, or waits for one."""
        with self._broker.lock:
            if self._joined:
                self._joined = False
                group = self._broker.topics[self._topic].groups[self._group]
                group.members.remove(self)
                group.give_back(self._open.values())
                self._open.clear()
                self._broker.deal(self._topic)


class MemoryInbox:
    """Receives the answers of one replica."""

    def __init__(self, broker: MemoryBroker, address: MemoryAddress, sink: Sink) -> None:
        self._broker, self._address, self._sink = broker, address, sink
        with broker.lock:
            self._sinks = broker.topics[address.topic].inboxes.setdefault(str(address.replica), [])
            self._sinks.append(sink)

    @property
    def address(self) -> MemoryAddress:
        """Where answers to this inbox go."""
        return self._address

    def close(self) -> None:
        """Stop receiving."""
        with self._broker.lock:
            if self._sink in self._sinks:
                self._sinks.remove(self._sink)


@dataclass(frozen=True, slots=True)
class _Queued:
    to: Address
    message: Message
    tag: Hashable
    correlation: bytes | None
    reply_to: Address | None
    expires_s: float


class MemorySender:
    """Sends at once while the broker is up; holds back at most `queue_limit` messages while it is down."""

    def __init__(self, broker: MemoryBroker, sink: Sink, message_timeout_s: float, queue_limit: int) -> None:
        self._broker, self._sink = broker, sink
        self._message_timeout_s, self._queue_limit = message_timeout_s, queue_limit
        self._queue: deque[_Queued] = deque()
        with broker.lock:
            broker.senders.append(self)

    def wait_ready(self, timeout_s: float) -> bool:
        """Whether the broker is up: without a clock of its own there is nothing to wait for."""
        return self._broker.up

    def send(
        self,
        to: Address,
        message: Message,
        tag: Hashable,
        *,
        correlation: bytes | None = None,
        reply_to: Address | None = None,
    ) -> bool:
        """Deliver, or queue while the broker is down."""
        with self._broker.lock:
            if len(self._queue) >= self._queue_limit:
                return False
            expires_s = self._broker.clock() + self._message_timeout_s
            self._queue.append(_Queued(to, message, tag, correlation, reply_to, expires_s))
            if self._broker.up:
                self.drain()
            return True

    def drain(self) -> None:
        """Deliver what is queued (for the broker)."""
        while self._queue:
            queued = self._queue.popleft()
            refused = self._broker.store(queued.to, queued.message, queued.correlation, queued.reply_to)
            self._sink(Sent(queued.tag, refused))

    def expire(self) -> None:
        """Fail what has waited too long (for the broker)."""
        with self._broker.lock:
            now_s = self._broker.clock()
            while self._queue and self._queue[0].expires_s <= now_s:
                self._fail(self._queue.popleft(), "not acknowledged in time")

    def purge(self) -> None:
        """Fail everything queued."""
        with self._broker.lock:
            while self._queue:
                self._fail(self._queue.popleft(), "purged")

    def flush(self, timeout_s: float) -> int:
        """How many are still queued: without a clock of its own there is nothing to wait for."""
        self.expire()
        return len(self._queue)

    def close(self) -> None:
        """Fail what is queued and be forgotten."""
        self.purge()
        with self._broker.lock:
            if self in self._broker.senders:
                self._broker.senders.remove(self)

    def _fail(self, queued: _Queued, why: str) -> None:
        self._sink(Sent(queued.tag, SendError(why, permanent=False)))


class MemoryLink:
    """One side's brokers: a `Link` on a `MemoryBroker`."""

    def __init__(self, broker: MemoryBroker, name: str) -> None:
        self._broker, self._name = broker, name
        self._watching: list[tuple[str, Sink]] = []

    @property
    def capabilities(self) -> Capabilities:
        """All of them."""
        return Capabilities(append_time=True, admin=True, redelivers=True, replicas=True)

    def queue(self, name: str) -> MemoryAddress:
        """The address of a queue."""
        return MemoryAddress(name)

    def prepare(
        self, names: Sequence[str], timeout_s: float, largest: Mapping[str, int] | None = None
    ) -> Mapping[str, int]:
        """Make the topics that are not there; all take the same."""
        self._need_up()
        with self._broker.lock:
            for name in names:
                self._broker.topics.setdefault(name, _Topic())
        return dict.fromkeys(names, self._broker.max_message_bytes)

    def check_may_write(self, name: str, timeout_s: float) -> None:
        """Everybody may."""

    def requests(self, name: str, group: str, sink: Sink) -> MemorySource:
        """A consumer of a queue that was prepared."""
        self._need_topic(name)
        self._watch(sink)
        return MemorySource(self._broker, name, group, sink)

    def replies(self, name: str, replica: str, sink: Sink, timeout_s: float) -> MemoryInbox:
        """The inbox of a replica."""
        self._need_up()
        self._need_topic(name)
        self._watch(sink)
        return MemoryInbox(self._broker, MemoryAddress(name, replica), sink)

    def browse(self, name: str, timeout_s: float) -> Iterator[Delivery]:
        """What a topic was ever sent: memory forgets nothing."""
        self._need_up()
        self._need_topic(name)
        with self._broker.lock:
            return iter(self._broker.deliveries(self._broker.topics[name].log))

    def sender(
        self, sink: Sink, *, message_timeout_s: float, queue_limit: int, to_unprepared: bool = False
    ) -> MemorySender:
        """A sender; all queues take the same."""
        self._watch(sink)
        return MemorySender(self._broker, sink, message_timeout_s, queue_limit)

    def close(self) -> None:
        """Report no more `LinkState`."""
        with self._broker.lock:
            for watcher in self._watching:
                self._broker.watchers.remove(watcher)
            self._watching.clear()

    def _watch(self, sink: Sink) -> None:
        with self._broker.lock:
            if (self._name, sink) not in self._watching:
                self._watching.append((self._name, sink))
                self._broker.watchers.append((self._name, sink))

    def _need_up(self) -> None:
        if not self._broker.up:
            raise BrokerUnavailableError("expected the memory broker to be up, it was taken down; bring it up first")

    def _need_topic(self, name: str) -> None:
        if name not in self._broker.topics:
            raise TransportError(f"expected a topic that is there, got {name}")
