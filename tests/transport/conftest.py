"""The transports under test: `memory`, and `kafka` on the embedded broker or on BRANCHY_TEST_BROKERS."""

from __future__ import annotations

import os

import pytest
from transport_harness import Harness, KafkaHarness, MemoryHarness


@pytest.fixture(scope="session")
def kafka_brokers(request: pytest.FixtureRequest) -> str:
    """A real Kafka's addresses where BRANCHY_TEST_BROKERS names one, else the embedded broker's."""
    named = os.environ.get("BRANCHY_TEST_BROKERS")
    return named or request.getfixturevalue("embedded_broker").brokers


@pytest.fixture(params=["memory", "kafka"])
def transport(request: pytest.FixtureRequest) -> Harness:
    if request.param == "memory":
        return MemoryHarness()
    return KafkaHarness(request.getfixturevalue("kafka_brokers"))
