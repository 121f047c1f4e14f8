"""The transports under test: `memory`, and Kafka's on the embedded broker and on a real Apache Kafka."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import pytest
from transport_harness import Harness, KafkaHarness, MemoryHarness

from branchy.brokers.embedded import EmbeddedBroker


@pytest.fixture(scope="session")
def real_brokers(request: pytest.FixtureRequest) -> str:
    """Other brokers where BRANCHY_TEST_BROKERS names some, else those of the session's own Kafka."""
    named = os.environ.get("BRANCHY_TEST_BROKERS")
    return named or request.getfixturevalue("apache_kafka").brokers


@pytest.fixture(scope="session")
def embedded_harness(embedded_broker: EmbeddedBroker) -> Iterator[Harness]:
    with closing(KafkaHarness(embedded_broker.brokers)) as harness:
        yield harness


@pytest.fixture(scope="session")
def kafka_harness(real_brokers: str) -> Iterator[Harness]:
    with closing(KafkaHarness(real_brokers)) as harness:
        yield harness


@pytest.fixture(params=["memory", "embedded", "kafka"])
def transport(request: pytest.FixtureRequest) -> Harness:
    if request.param == "memory":
        return MemoryHarness()
    harness: Harness = request.getfixturevalue(f"{request.param}_harness")
    return harness
