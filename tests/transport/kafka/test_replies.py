"""Which partition a replica reads, and that it shares it only in passing."""

from __future__ import annotations

from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_produce import produce_named, produce_unreadable
from transport_harness import Events, fresh_name, kafka_settings, message

from branchy.errors import BrokerUnavailableError, TransportError
from branchy.transport.base import Failed, Replied
from branchy.transport.kafka import KafkaLink
from branchy.transport.kafka import replies as replies_module
from branchy.transport.kafka.replies import KafkaInbox, reply_partition


@pytest.mark.parametrize(("replica", "count", "partition"), [("0", 4, 0), ("3", 4, 3), ("6", 4, 2), ("edge-7", 12, 6)])
def test_the_partition_is_the_ordinal_or_crc32_of_the_name_modulo_the_count(replica: str, count: int, partition: int):
    assert reply_partition(replica, count) == partition


@given(st.text(), st.integers(1, 1000))
def test_every_name_has_a_partition_that_exists(replica: str, count: int):
    assert 0 <= reply_partition(replica, count) < count


@pytest.fixture
def link(embedded_broker):
    with closing(KafkaLink(kafka_settings(embedded_broker.brokers), "front")) as link:
        yield link


@pytest.fixture
def topic(link) -> str:
    name = f"{fresh_name()}.answers"
    link.prepare([name], 10)
    return name


def test_replicas_that_share_a_partition_both_receive(link: KafkaLink, topic: str):
    one, other = Events(), Events()
    with (
        closing(link.replies(topic, "0", one, 10)) as inbox,
        closing(link.replies(topic, "4", other, 10)) as neighbour,
        closing(link.sender(Events(), message_timeout_s=10, queue_limit=10)) as sender,
    ):
        assert inbox.address == neighbour.address
        sender.send(inbox.address, message("for one of them"), 1, correlation=b"c")
        assert [replied.correlation for replied in one.wait(Replied) + other.wait(Replied)] == [b"c", b"c"]


def test_an_unreadable_answer_does_not_stop_the_next(link: KafkaLink, topic: str, embedded_broker):
    events = Events()
    with (
        closing(link.replies(topic, "1", events, 10)) as inbox,
        closing(link.sender(Events(), message_timeout_s=10, queue_limit=10)) as sender,
    ):
        assert produce_unreadable(embedded_broker.brokers, topic, inbox.address.partition, count=3)
        sender.send(inbox.address, message("next"), 1)
        assert events.wait(Replied)[0].message.body == b"next"


def test_an_answer_with_a_header_name_that_is_no_text_does_not_stop_the_next(
    link: KafkaLink, topic: str, embedded_broker
):
    events = Events()
    with (
        closing(link.replies(topic, "1", events, 10)) as inbox,
        closing(link.sender(Events(), message_timeout_s=10, queue_limit=200)) as sender,
    ):
        for count in (1, 101):
            produce_named(embedded_broker.brokers, topic, inbox.address.partition, [b"\xff"], b"")
            for number in range(100):
                assert sender.send(inbox.address, message("next"), number)
            assert events.wait(Replied, count)[count - 1].message.body == b"next"
        assert len(events.wait(Replied, 200)) == 200


def test_an_inbox_that_ends_by_a_bug_says_so_and_closes_its_consumer(link: KafkaLink, topic: str, monkeypatch):
    def break_it(self: KafkaInbox) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(KafkaInbox, "_take_what_is_there", break_it)
    events = Events()
    with closing(link.replies(topic, "1", events, 10)) as inbox:
        (failed,) = events.wait(Failed)
        inbox._thread.join(10)
        with pytest.raises(RuntimeError, match="closed"):
            inbox._consumer.poll(0)
    assert type(failed.error) is TransportError
    assert "front: the consumer has come to its end by a bug: ZeroDivisionError: a bug" in str(failed.error)


def test_an_answer_that_expands_to_more_than_its_topic_takes_is_left_out(link: KafkaLink, topic: str, caplog):
    events = Events()
    with (
        closing(link.replies(topic, "1", events, 10)) as inbox,
        closing(link.sender(Events(), message_timeout_s=10, queue_limit=10)) as sender,
    ):
        link._cluster._limits[topic] = 1000
        sender.send(inbox.address, message("x" * 1001), 1)
        sender.send(inbox.address, message("next"), 2)
        assert events.wait(Replied)[0].message.body == b"next"
    assert f"{topic} offset 0 is left out: it expands to 1" in caplog.text


def test_a_leader_that_does_not_know_yet_is_asked_until_the_time_is_over(link: KafkaLink, topic: str, monkeypatch):
    monkeypatch.setattr(replies_module, "reply_partition", lambda replica, count: 99)
    with pytest.raises(BrokerUnavailableError, match=r"within 0\.3 s"):
        link.replies(topic, "0", Events(), 0.3)
