"""What the transports' tests share: a sink that can be waited on, and each transport's own way to break things."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import pytest
from raw_produce import produce_unreadable

from branchy.config import LinkSettings
from branchy.transport.base import Address, Arrived, Delivery, Link, Message, Sender, Sent, TransportEvent
from branchy.transport.kafka import KafkaLink
from branchy.transport.memory import MemoryBroker

E = TypeVar("E")
PATIENCE_S = 30.0


class Events:
    """A sink; `wait` blocks until there are enough events of a kind."""

    def __init__(self, on_event: Callable[[TransportEvent], None] = lambda _: None) -> None:
        self.all: list[TransportEvent] = []
        self._changed = threading.Condition()
        self._on_event = on_event

    def __call__(self, *events: TransportEvent) -> None:
        with self._changed:
            self.all.extend(events)
            self._changed.notify_all()
        for event in events:
            self._on_event(event)

    def of(self, kind: type[E]) -> list[E]:
        with self._changed:
            return [event for event in self.all if isinstance(event, kind)]

    def wait(self, kind: type[E], count: int = 1, timeout_s: float = PATIENCE_S) -> list[E]:
        with self._changed:
            enough = self._changed.wait_for(lambda: len(self.of(kind)) >= count, timeout_s)
        found = self.of(kind)
        assert enough, f"expected {count} {kind.__name__}, got {len(found)} after {timeout_s} s"
        return found

    def wait_until(self, reached: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
        with self._changed:
            assert self._changed.wait_for(reached, timeout_s), f"not reached after {timeout_s} s"

    def deliveries(self) -> list[Delivery]:
        return [delivery for arrived in self.of(Arrived) for delivery in arrived.deliveries]

    def wait_deliveries(self, count: int, timeout_s: float = PATIENCE_S) -> list[Delivery]:
        with self._changed:
            enough = self._changed.wait_for(lambda: len(self.deliveries()) >= count, timeout_s)
        assert enough, f"expected {count} deliveries, got {len(self.deliveries())} after {timeout_s} s"
        return self.deliveries()


def message(text: str, **headers: str) -> Message:
    return Message([(name, value.encode()) for name, value in headers.items()], text.encode())


def texts(deliveries: list[Delivery]) -> list[str]:
    return [delivery.message.body.decode() for delivery in deliveries]


class Victim(Protocol):
    """A consumer that takes messages, settles the first so many, and is then killed."""

    def wait_received(self, count: int) -> list[str]: ...

    def kill(self) -> None: ...


class Harness(Protocol):
    """One transport under test."""

    def link(self, name: str = "link") -> Link: ...

    def feed(self, to: Address, messages: Sequence[Message], **options: Any) -> None:
        """Send these and see them acknowledged, with a sender that stays open: a new one takes up to a second."""
        ...

    def victim(self, topic: str, group: str, settle: int) -> Victim: ...

    def put_unreadable(self, topic: str) -> None: ...


def fresh_name() -> str:
    return f"branchy.t{uuid.uuid4().hex[:12]}"


class Feeder:
    """A sender that is opened when it is first used."""

    def __init__(self, link: Link) -> None:
        self._link, self._events = link, Events()
        self._sender: Sender | None = None

    def feed(self, to: Address, messages: Sequence[Message], **options: Any) -> None:
        if self._sender is None:
            self._sender = self._link.sender(self._events, message_timeout_s=10, queue_limit=10_000)
        self._events.all.clear()
        for tag, each in enumerate(messages):
            assert self._sender.send(to, each, tag, **options)
        assert self._sender.flush(10) == 0
        assert [sent.error for sent in self._events.wait(Sent, len(messages))] == [None] * len(messages)

    def close(self) -> None:
        if self._sender is not None:
            self._sender.close()
        self._link.close()


class MemoryHarness:
    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.feed = Feeder(self.broker.link("feeder")).feed

    def link(self, name: str = "link") -> Link:
        return self.broker.link(name)

    def victim(self, topic: str, group: str, settle: int) -> Victim:
        return _MemoryVictim(self.broker, topic, group, settle)

    def put_unreadable(self, topic: str) -> None:
        self.broker.put(topic, Message((), b""), fault="cannot be read")


class _MemoryVictim:
    def __init__(self, broker: MemoryBroker, topic: str, group: str, settle: int) -> None:
        self._settle = settle
        self._events = Events()
        self._source = broker.link("victim").requests(topic, group, self._events)
        self._source.start()

    def wait_received(self, count: int) -> list[str]:
        deliveries = self._events.wait_deliveries(count)
        for delivery in deliveries[: self._settle]:
            self._source.settle(delivery.token)
        return texts(deliveries)

    def kill(self) -> None:
        self._source.close()


def kafka_settings(brokers: str) -> LinkSettings:
    """BRANCHY_TEST_GROUP_PROTOCOL picks Kafka's group protocol, for a real Kafka has both."""
    return LinkSettings(brokers=brokers, group_protocol=os.environ.get("BRANCHY_TEST_GROUP_PROTOCOL"))


class KafkaHarness:
    def __init__(self, brokers: str) -> None:
        self.settings = kafka_settings(brokers)
        self._feeder = Feeder(self.link("feeder"))
        self.feed = self._feeder.feed
        self.close = self._feeder.close

    def link(self, name: str = "link") -> Link:
        return KafkaLink(self.settings, name)

    def victim(self, topic: str, group: str, settle: int) -> Victim:
        return _KafkaVictim(str(self.settings.brokers), topic, group, settle)

    def put_unreadable(self, topic: str) -> None:
        if not produce_unreadable(str(self.settings.brokers), topic, partition=0, count=5):
            pytest.skip("these brokers refuse what cannot be read")


class _KafkaVictim:
    """A process of its own, killed with SIGKILL; it settles its first messages one by one."""

    def __init__(self, brokers: str, topic: str, group: str, settle: int) -> None:
        arguments: list[Any] = [sys.executable, __file__, brokers, topic, group, settle]
        self._process = subprocess.Popen([str(a) for a in arguments], stdout=subprocess.PIPE, text=True)

    def wait_received(self, count: int) -> list[str]:
        assert self._process.stdout is not None
        received: list[str] = []
        while len(received) < count:
            line = self._process.stdout.readline()
            assert line, "the victim ended early"
            received.append(json.loads(line))
        return received

    def kill(self) -> None:
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def _be_a_victim(brokers: str, topic: str, group: str, settle: int) -> None:
    """Settle the first `settle` messages, have that committed, then report everything received."""
    events = Events()
    link = KafkaLink(kafka_settings(brokers), "victim")
    source = link.requests(topic, group, events)
    source.start()
    reported = 0
    while True:
        for delivery in events.wait_deliveries(reported + 1)[reported:]:
            if reported < settle:
                source.settle(delivery.token)
                threading.Event().wait(0.5)  # longer than the interval of commits, which nothing else shows
            reported += 1
            print(json.dumps(delivery.message.body.decode()), flush=True)


if __name__ == "__main__":
    _be_a_victim(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
