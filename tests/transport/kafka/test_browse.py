"""Browsing, with a consumer whose every answer the test writes; the contract suite does it on brokers."""

from __future__ import annotations

import time
from contextlib import closing

import pytest
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, KafkaError, KafkaException
from fake_kafka import TOPIC, FakeCluster, FakeConsumer, FakeMessage
from raw_produce import produce_named, produce_unreadable
from transport_harness import fresh_name, kafka_settings

from branchy.errors import BrokerUnavailableError, TransportError
from branchy.transport.base import Message
from branchy.transport.kafka import KafkaLink
from branchy.transport.kafka.browse import browse

END = KafkaError._PARTITION_EOF


class Partitions(FakeConsumer):
    """Says where each partition begins and ends, and answers polls with what it is given."""

    def __init__(self, watermarks: dict[int, tuple[int, int]], *messages: FakeMessage) -> None:
        super().__init__()
        self.watermarks = watermarks
        for message in messages:
            self.turns.put(message)

    def get_watermark_offsets(self, partition, timeout: float) -> tuple[int, int]:
        return self.watermarks.get(partition.partition, (0, 0))

    def assign(self, partitions) -> None:
        self.calls.append(("assigned", {each.partition: each.offset for each in partitions}))


def read(consumer: Partitions, timeout_s: float = 5.0) -> list[tuple[int, bytes]]:
    found = browse(FakeCluster(consumer), TOPIC, timeout_s)
    return [(each.token.assignment.partition, each.message.body) for each in found]


def test_partitions_are_read_from_their_low_watermarks_and_empty_ones_not_at_all():
    consumer = Partitions({1: (5, 7), 3: (0, 1)}, *(FakeMessage(o, partition=p) for p, o in ((1, 5), (3, 0), (1, 6))))
    assert read(consumer) == [(1, b"5"), (3, b"0"), (1, b"6")]
    assert consumer.named("assigned") == [{1: 5, 3: 0}]
    assert consumer.named("close") == [None]


def test_what_comes_after_the_end_is_not_handed_on():
    late = (FakeMessage(1), FakeMessage(2), FakeMessage(0, partition=1))
    assert read(Partitions({0: (0, 1), 1: (0, 1)}, FakeMessage(0), *late)) == [(0, b"0"), (1, b"0")]


def test_a_partition_whose_last_offsets_hold_no_message_ends_where_the_brokers_say():
    assert read(Partitions({0: (0, 3)}, FakeMessage(0), FakeMessage(3, error=END))) == [(0, b"0")]


def test_nothing_is_ever_committed_and_the_group_never_joined():
    consumer = Partitions({0: (0, 1)}, FakeMessage(0))
    cluster = FakeCluster(consumer)
    list(browse(cluster, TOPIC, 5.0))
    assert cluster.configs[0]["enable.auto.commit"] is False
    assert consumer.named("commit") == []
    assert consumer.callbacks == {}


def test_brokers_that_go_silent_on_the_way_are_an_error_and_the_consumer_is_closed():
    consumer = Partitions({0: (0, 2)}, FakeMessage(0))
    with pytest.raises(BrokerUnavailableError, match="sent nothing more for 0"):
        read(consumer, timeout_s=0.05)
    assert consumer.named("close") == [None]


def test_a_topic_that_may_not_be_read_is_an_error_at_once():
    consumer = Partitions({0: (0, 2)}, FakeMessage(0, error=KafkaError.TOPIC_AUTHORIZATION_FAILED))
    with pytest.raises(TransportError, match="do not allow it"):
        read(consumer)
    assert consumer.named("close") == [None]


def test_ends_that_nobody_tells_are_an_error_before_anything_is_read():
    consumer = Partitions({})

    def refuse(partition, timeout: float) -> None:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    consumer.get_watermark_offsets = refuse
    with pytest.raises(BrokerUnavailableError, match="no Kafka broker answered"):
        browse(FakeCluster(consumer), TOPIC, 0.1)
    assert consumer.named("close") == [None]


def test_ages_are_by_the_brokers_stamp_never_negative_and_0_without_one():
    now_ms = int(time.time() * 1000)
    stamps = (FakeMessage(0, timestamp_ms=now_ms - 60_000), FakeMessage(1, timestamp_ms=now_ms + 60_000))
    consumer = Partitions({0: (0, 3)}, *stamps, FakeMessage(2, kind=TIMESTAMP_NOT_AVAILABLE))
    first, *others = (each.age_s for each in browse(FakeCluster(consumer), TOPIC, 5.0))
    assert first == pytest.approx(60, abs=30)
    assert others == [0.0, 0.0]


def test_a_batch_that_cannot_be_read_is_as_old_as_what_lies_before_it(embedded_broker):
    topic = f"{fresh_name()}.edge.dead"
    with closing(KafkaLink(kafka_settings(embedded_broker.brokers), "back")) as link:
        link.prepare([topic], 20)
        produce_named(embedded_broker.brokers, topic, 0, [], b"old")
        assert produce_unreadable(embedded_broker.brokers, topic, 0)
        old, unreadable = link.browse(topic, 20)
    assert unreadable.fault is not None
    assert unreadable.age_s == old.age_s > 3600.0, "the embedded broker stamps what comes with 1970"


def test_a_header_whose_name_cannot_be_read_is_a_fault():
    unreadable = FakeMessage(0, headers=UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"))
    (delivery,) = browse(FakeCluster(Partitions({0: (0, 1)}, unreadable)), TOPIC, 5.0)
    assert delivery.fault == "a header's name is not UTF-8"


def test_a_header_name_that_is_no_text_does_not_end_the_process(embedded_broker):
    topic = f"{fresh_name()}.edge.dead"
    with closing(KafkaLink(kafka_settings(embedded_broker.brokers), "back")) as link:
        link.prepare([topic], 20)
        for number in range(60):
            produce_named(embedded_broker.brokers, topic, 0, [b"fine"], b"%d" % number)
        produce_named(embedded_broker.brokers, topic, 0, [b"\xff"], b"bad")
        *good, bad = link.browse(topic, 20)
    assert {each.fault for each in good} == {None}
    assert (bad.message, bad.fault) == (Message((), b"bad"), "a header's name is not UTF-8")
