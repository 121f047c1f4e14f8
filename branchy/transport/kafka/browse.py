"""Reading a topic from its beginning to its end, by `assign`: no group, no commit, nothing changes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, KafkaException, TopicPartition

from branchy.errors import BrokerUnavailableError, RefusedError, TransportError
from branchy.transport.base import Delivery, Message
from branchy.transport.kafka.addresses import Assignment, KafkaToken, open_envelope
from branchy.transport.kafka.cluster import Cluster
from branchy.transport.kafka.config import CONSUMER, EMBEDDED_CONSUMER
from branchy.transport.kafka.fetch import BAD_NAME, UNREADABLE, Fetcher, Unreadable, received_headers
from branchy.transport.kafka.topics import NO_GROUP, NOT_ALLOWED
from branchy.transport.kafka.watermarks import watermarks

POLL_S = 0.1


def browse(cluster: Cluster, topic: str, timeout_s: float) -> Iterator[Delivery]:
    """See `Link.browse`; the topic and its ends are looked up at once, messages are fetched as they are asked for.

    Args:
        cluster: connected.
        topic: its name.
        timeout_s: how long to wait, each time nothing comes.
    """
    count = cluster.partitions(topic)
    if count == 0:
        raise TransportError(f"expected a topic that is there, got {topic}")
    group = {"group.id": f"branchy-browse-{topic}"}  # librdkafka wants one; nothing ever joins it
    # The end is told as an event: the last offsets may hold no message (a transaction's marker).
    at_end = {"enable.partition.eof": True}
    extra = EMBEDDED_CONSUMER if cluster.embedded else {}
    consumer = cluster.client(Consumer, CONSUMER, group, at_end, extra)
    try:
        ends = _assign(consumer, topic, count, timeout_s)
    except KafkaException as error:
        consumer.close()
        raise cluster.unavailable(error, timeout_s) from None
    return _read(cluster, consumer, ends, timeout_s)


def _assign(consumer: Any, topic: str, count: int, timeout_s: float) -> dict[int, int]:
    """Start at each partition's low watermark; returns the high ones of those that hold something."""
    starts, ends = [], {}
    for partition in range(count):
        low, high = watermarks(consumer, topic, partition, timeout_s)
        if low < high:
            starts.append(TopicPartition(topic, partition, low))
            ends[partition] = high
    consumer.assign(starts)
    return ends


def _read(cluster: Cluster, consumer: Any, ends: dict[int, int], timeout_s: float) -> Iterator[Delivery]:
    """Hand on what lies before the ends, then close the consumer."""
    fetcher = Fetcher(consumer, cluster.name)
    give_up_s = time.monotonic() + timeout_s
    ages_s: dict[int, float] = {}
    try:
        while ends:
            message = fetcher.first(POLL_S)
            if message is None:
                if time.monotonic() > give_up_s:
                    raise BrokerUnavailableError(f"{cluster.name}: the brokers sent nothing more for {timeout_s:g} s")
                continue
            _refuse(message)
            found = fetcher.sift(message)
            if message.error() is None or message.error().code() in UNREADABLE:
                give_up_s = time.monotonic() + timeout_s
            if found is None or message.partition() not in ends:
                continue
            first, last = found[2:4] if isinstance(found, Unreadable) else (found.offset(),) * 2
            end = ends[message.partition()]
            if last + 1 >= end:
                del ends[message.partition()]
            if first < end and not _is_end(message):
                if isinstance(found, Unreadable):
                    yield _passed(found, ages_s.get(found.partition, 0.0))
                else:
                    delivery = _delivery(cluster, found)
                    ages_s[message.partition()] = delivery.age_s
                    yield delivery
    finally:
        consumer.close()


def _is_end(message: Any) -> bool:
    return message.error() is not None and message.error().code() == KafkaError._PARTITION_EOF


def _refuse(message: Any) -> None:
    """Raise `RefusedError` where this user may not read on."""
    error = message.error()
    if error is not None and error.code() in NOT_ALLOWED and error.code() != NO_GROUP:
        raise RefusedError(f"{message.topic()}: the brokers do not allow it: {error.str()}")


def _passed(batch: Unreadable, age_s: float) -> Delivery:
    """A batch that nobody can read, its age neither: about that of what lies before it."""
    token = KafkaToken(Assignment(batch.topic, batch.partition, 0), batch.last)
    return Delivery(token, Message((), b""), age_s, None, None, f"cannot be read: {batch.why}")


def _delivery(cluster: Cluster, message: Any) -> Delivery:
    token = KafkaToken(Assignment(message.topic(), message.partition(), 0), message.offset())
    kind, timestamp_ms = message.timestamp()
    age_s = 0.0 if kind == TIMESTAMP_NOT_AVAILABLE else max(0.0, time.time() - timestamp_ms / 1000)
    headers, body = received_headers(message), message.value() or b""
    if headers is None:
        return Delivery(token, Message((), body), age_s, None, None, BAD_NAME)
    envelope = open_envelope(headers, cluster.complaint)
    return Delivery(
        token, Message(envelope.headers, body), age_s, envelope.reply_to, envelope.correlation, envelope.fault
    )
