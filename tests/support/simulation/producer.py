"""A sender, as `branchy.transport.kafka.sender` is one, with every way its delivery reports can go."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from functools import partial
from itertools import count

from branchy.transport.base import Address, Message, SendError, Sent, Sink
from branchy.transport.kafka.clock import SAMPLES, ClockOffset
from simulation.broker import Broker, Place, Record
from simulation.network import Link
from simulation.world import World


class LearntClock(ClockOffset):
    """What a broker's clock shows, as a process learns it.

    Attributes:
        worst_s: the longest round trip that it was learnt from.
        clock: which of the broker's clocks it is, None while some of what it was learnt from is of another.
    """

    def __init__(self) -> None:
        super().__init__()
        self.worst_s = 0.0
        self._clocks: deque[int] = deque(maxlen=SAMPLES)

    def learn(self, queued: _Queued, record: Record, now_s: float) -> None:
        """A send of ours is acknowledged."""
        self.worst_s = max(self.worst_s, now_s - queued.sent_s)
        self._clocks.append(record.clock)
        self.observe(queued.sent_s, now_s, record.appended_s)

    @property
    def clock(self) -> int | None:
        return self._clocks[0] if self._clocks and self._clocks[0] == self._clocks[-1] else None


class _Queued:
    """A send that is not reported yet."""

    __slots__ = ("appended", "correlation", "expires", "message", "reply_to", "sent_s", "tag", "to")

    def __init__(
        self, to: Place, message: Message, tag: Hashable, correlation: bytes | None, reply_to: Address | None
    ) -> None:
        self.to, self.message, self.tag, self.correlation, self.reply_to = to, message, tag, correlation, reply_to
        self.appended: Record | None = None
        self.expires = self.sent_s = 0.0


class Producer:
    """A `Sender`: idempotent, so a send is appended at most once; its report may come late, or say that it failed.

    A failed report leaves open whether the message is there: it may have been appended before, or
    while it was on its way it may be appended after. A share `twice` of what a client without idempotence
    sends is appended twice.
    """

    def __init__(
        self,
        world: World,
        name: str,
        broker: Broker,
        link: Link,
        sink: Sink,
        *,
        timeout_s: float,
        limit: Callable[[], int],
        clock: LearntClock,
        monotonic: Callable[[], float],
        twice: float = 0.0,
    ) -> None:
        self.name, self.dead = name, False
        self._world, self._broker, self._link, self._sink = world, broker, link, sink
        self._timeout_s, self._limit = timeout_s, limit
        self.clock, self._monotonic, self._twice = clock, monotonic, twice
        self._rng, self._twice_rng = world.random(name), world.random(f"{name} twice")
        self._queue: OrderedDict[int, _Queued] = OrderedDict()
        self._numbers = count()
        self._alarm = False
        self._next_partition = self._rng.randrange(64)

    def send(
        self,
        to: Address,
        message: Message,
        tag: Hashable,
        *,
        correlation: bytes | None = None,
        reply_to: Address | None = None,
    ) -> bool:
        """Queue a message; what has no partition goes to each in turn."""
        if len(self._queue) >= self._limit():
            return False
        if not self._broker.knows(to):
            self._broker.answered(to, correlation)  # nobody ever can
            self._world.after(0.0, partial(self._sink, Sent(tag, SendError("unknown partition", permanent=True))))
            return True
        queued = _Queued(self._partition(to), message, tag, correlation, reply_to)
        queued.sent_s, queued.expires = self._monotonic(), self._world.now + self._timeout_s
        number = next(self._numbers)
        self._queue[number] = queued
        self._link.out.carry(partial(self._arrive, number, queued))
        self._set_alarm()
        return True

    def purge(self) -> None:
        """Report all that is not acknowledged as failed."""
        for number in list(self._queue):
            self._report(number, SendError("purged", permanent=False))

    def flush(self, timeout_s: float) -> int:
        """How many are not acknowledged: a virtual clock does not wait here."""
        return len(self._queue)

    def kill(self) -> None:
        """The process is gone: nobody is told anything any more."""
        self.dead = True
        self._queue.clear()

    def _partition(self, to: Place) -> Place:
        if to.partition is not None:
            return to
        self._next_partition += 1
        return Place(to.topic, self._next_partition % len(self._broker.topics[to.topic].logs))

    def _arrive(self, number: int, queued: _Queued) -> None:
        """At the broker. One that was given up meanwhile may have been on its way, or never have left."""
        if number not in self._queue and self._rng.random() < 0.5:
            return
        if self._link.refusals and self._rng.random() < self._link.refusals:
            error = SendError("not enough replicas", permanent=False)
            self._link.back.carry(partial(self._report, number, error))
            return
        queued.appended = self._append(queued)
        if self._twice_rng.random() < self._twice:
            self._link.out.carry(partial(self._append, queued))
        key = getattr(queued.tag, "key", None)
        if getattr(queued.tag, "kind", None) == "dead":
            self._broker.topics[key.assignment.topic].logs[key.assignment.partition][key.offset].done = True
        self._link.back.carry(partial(self._acknowledge, number, queued))

    def _append(self, queued: _Queued) -> Record:
        return self._broker.append(queued.to, queued.message, queued.correlation, queued.reply_to)

    def _acknowledge(self, number: int, queued: _Queued) -> None:
        if number in self._queue and queued.appended is not None:
            self.clock.learn(queued, queued.appended, self._monotonic())
            self._report(number, None)

    def _report(self, number: int, error: SendError | None) -> None:
        queued = self._queue.pop(number, None)
        if queued is not None and not self.dead:
            self._sink(Sent(queued.tag, error))

    def _set_alarm(self) -> None:
        if self._queue and not self._alarm:
            self._alarm = True
            first = next(iter(self._queue.values()))
            self._world.after(first.expires - self._world.now, self._expire)

    def _expire(self) -> None:
        self._alarm = False
        for number, queued in list(self._queue.items()):
            if queued.expires > self._world.now:
                break
            self._report(number, SendError("timed out", permanent=False))
        self._set_alarm()
