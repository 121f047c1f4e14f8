from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median

import pytest
from chaos import resources
from chaos.resources import MORE_BROKERS, MORE_CONNECTIONS, MORE_MEMORY_BYTES, Held, Watched, left_pending
from chaos.world import pending_at
from confluent_kafka import Producer
from memory_cascade import MemoryCascade, sample

from branchy.brokers.kafka_config import HOST
from branchy.config import HealthSettings
from branchy.errors import BranchyError
from branchy.runner.health_port import HealthPort

OWN = {"test": os.getpid()}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "SETTLE_TIMEOUT_S", 0.0)


@pytest.fixture
def watched() -> Watched:
    watched = Watched()
    watched.look(OWN)
    return watched


def test_what_a_process_holds_as_before_is_no_leak(watched):
    assert list(watched.leaks(OWN)) == []


@pytest.mark.parametrize(
    ("what", "more"),
    [
        ("memory_bytes", MORE_MEMORY_BYTES + (8 << 20)),
        ("files", 1),
        ("threads", 1),
        ("connections", MORE_CONNECTIONS + 1),
        ("brokers", MORE_BROKERS + 1),
    ],
)
def test_more_of_anything_is_a_leak(watched, what, more):
    now = Held.by(OWN["test"])
    watched._first = {OWN["test"]: replace(now, **{what: getattr(now, what) - more})}
    (text,) = watched.leaks(OWN)
    assert text.startswith(f"test had {getattr(now, what) - more} {what}, has ")


@pytest.fixture
def one_more_thread() -> Iterator[Callable[[], None]]:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    yield thread.start
    stop.set()
    thread.join()


def test_a_thread_that_is_left_is_seen_also_when_it_was_there_at_the_second_look(watched, one_more_thread):
    one_more_thread()
    assert len(list(watched.leaks(OWN))) == 1
    watched.look(OWN)
    assert len(list(watched.leaks(OWN))) == 1


def test_a_broker_that_a_client_knows_is_counted_with_all_that_it_takes():
    """A thread and two files: else a broker that was away and is back looks like a leak."""

    def taken_by(servers: int) -> tuple[float, float]:
        before = Held.by(OWN["test"])
        clients.append(Producer({"bootstrap.servers": ",".join(f"127.0.0.{n + 1}:1" for n in range(servers))}))
        until_s = time.monotonic() + 10.0
        while Held.by(OWN["test"]).brokers < before.brokers + servers:  # a thread takes its name when it begins
            assert time.monotonic() < until_s
        looks = [Held.by(OWN["test"]) for _ in range(21)]  # some see a socket that is just opened, or just closed
        return median(look.threads for look in looks) - before.threads, median(k.files for k in looks) - before.files

    clients: list[Producer] = []
    assert taken_by(1) == taken_by(4)


def test_a_process_that_was_not_looked_at_yet_leaks_nothing(one_more_thread):
    """It took the place of one that was killed."""
    watched = Watched()
    one_more_thread()
    assert list(watched.leaks(OWN)) == []


def test_requests_that_are_left_pending_once_nothing_is_asked_are_told_by_replica():
    told = list(left_pending(lambda: {"edge-0": 0, "edge-1": 3, "fog-0": 0}))
    assert told == ["edge-1 still has 3 requests that wait for the front, and nothing is asked"]


def test_requests_that_end_in_time_are_not_left_pending(monkeypatch):
    monkeypatch.setattr(resources, "SETTLE_TIMEOUT_S", 20.0)
    looks = iter([{"edge-0": 3, "fog-0": 0}, {"edge-0": 0, "fog-0": 1}, {"edge-0": 0, "fog-0": 0}])
    assert list(left_pending(lambda: next(looks))) == []


def test_a_tier_tells_at_its_health_port_how_many_are_pending():
    cascade = MemoryCascade()
    edge = cascade.start("edge")
    port = HealthPort(HealthSettings(host=HOST), edge.health())
    assert pending_at(port.port) == 0
    cascade.ask(sample(2), to="edge", budget_ms=20_000.0)
    while edge.tier.machine.pending < 1:
        pass
    assert pending_at(port.port) == 1
    port.close()
    with pytest.raises(BranchyError, match="does not answer"):
        pending_at(port.port)
    cascade.close()
