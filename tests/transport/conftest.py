"""The transports under test: `memory`, and Kafka's on the embedded broker and on a real Apache Kafka."""

from __future__ import annotations

import os

import pytest
from transport_harness import Harness, KafkaHarness, MemoryHarness


@pytest.fixture(scope="session")
def real_brokers(request: pytest.FixtureRequest) -> str:
    """Other brokers where BRANCHY_TEST_BROKERS names some, else those of the session's own Kafka."""
    named = os.environ.get("BRANCHY_TEST_BROKERS")
    return named or request.getfixturevalue("apache_kafka").brokers


@pytest.fixture(params=["memory", "embedded", "kafka"])
def transport(request: pytest.FixtureRequest) -> Harness:
    if request.param == "memory":
        return MemoryHarness()
    if request.param == "embedded":
        return KafkaHarness(request.getfixturevalue("embedded_broker").brokers)
    return KafkaHarness(request.getfixturevalue("real_brokers"))
