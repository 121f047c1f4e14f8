"""Malformed messages at a running tier: none stops it, each lies in the dead letters with its code, counts agree."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_cascade import MemoryCascade, ToyCascade, sample
from poisons import BOMBS, Target
from poisons import poison as make_poison
from tier_world import DIGEST

from branchy.config import LinkSettings
from branchy.core import topics, wire
from branchy.transport.base import Message
from branchy.transport.kafka import KafkaLink

TARGET = Target(DIGEST, "edge", sample(0))


def attack(cascade: ToyCascade, messages: int) -> Counter[str]:
    """Send so many poisons to the edge, a good request after each; returns the codes there must be."""
    expected: Counter[str] = Counter()

    @settings(max_examples=messages, deadline=None)
    @given(st.randoms(use_true_random=False))
    def send(random: Random) -> None:
        poison = make_poison(TARGET, random)
        cascade.put(poison.message, to="edge", correlation=b"poison")
        correlation, answer = cascade.answer()
        assert (correlation, answer.label) == (b"poison", None)
        if poison.code is None:
            assert (answer.status, answer.reason) == ("rejected", "digest")
        else:
            expected[poison.code] += 1
            assert (answer.status, answer.reason) == (
                "error",
                "failed" if poison.code == "failed" else "malformed",
            ), answer
            assert poison.code == "failed" or answer.detail.startswith(f"{poison.code}: "), answer.detail
        asked = cascade.ask(sample(0), to="edge")
        good = cascade.answer()[1]
        assert (good.request, good.status, good.tier) == (asked, "ok", "edge")

    send()
    return expected


def check_counts(cascade: ToyCascade, expected: Counter[str]) -> None:
    """Dead letters, the tier's counters and what was sent say the same, and nothing is left open."""
    (edge,) = cascade.tiers
    edge.stop()
    codes = Counter(
        dict(each.message.headers)[wire.ERROR_CODE].decode()
        for each in cascade.link.browse(topics.dead_letters(cascade.cascade, "edge"), 20.0)
    )
    assert codes == expected
    counters = edge.tier.machine.counters
    assert counters["dead"] == expected.total()
    malformed = {name.partition(".")[2]: n for name, n in counters.items() if name.startswith("malformed.")}
    assert malformed == {code: n for code, n in expected.items() if code != "failed"}
    assert counters["undeliverable"] == 0
    assert not edge.tier._deliveries


@pytest.fixture
def embedded(embedded_broker) -> Iterator[ToyCascade]:
    cascade = ToyCascade(
        lambda name: KafkaLink(LinkSettings(brokers=embedded_broker.brokers), name), f"t{uuid.uuid4().hex[:8]}"
    )
    with closing(cascade):
        yield cascade


def test_hundreds_of_malformed_messages_stop_nothing_and_each_lies_in_the_dead_letters_with_its_code():
    with closing(MemoryCascade()) as cascade:
        cascade.start("edge")
        check_counts(cascade, attack(cascade, 500))


def test_over_kafka_too(embedded):
    embedded.start("edge")
    check_counts(embedded, attack(embedded, 60))


def test_a_flood_of_malformed_messages_among_good_ones_loses_no_good_one():
    with closing(MemoryCascade()) as cascade:
        edge = cascade.start("edge")
        asked = set()
        for _ in range(20):
            for bomb in BOMBS:
                cascade.put(Message(TARGET.good().headers, bomb), to="edge", correlation=b"poison")
            asked.add(cascade.ask(sample(0), to="edge"))
        answers = [cascade.answer() for _ in range(20 * (len(BOMBS) + 1))]
        assert {a.request for c, a in answers if c != b"poison" and a.status == "ok"} == asked
        assert {a.reason for c, a in answers if c == b"poison"} == {"malformed"}
        edge.stop()
        assert edge.back.source.unsettled() == 0
