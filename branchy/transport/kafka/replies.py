"""Answers to one replica's own address, read by `assign`: no rebalance ever touches the way back."""

from __future__ import annotations

import logging
import threading
import zlib
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from branchy.errors import TransportError
from branchy.transport.base import Message, Replied, Sink
from branchy.transport.kafka.addresses import KafkaAddress, open_envelope
from branchy.transport.kafka.cluster import Cluster
from branchy.transport.kafka.config import CONSUMER, EMBEDDED_CONSUMER
from branchy.transport.kafka.fetch import Fetcher, Unreadable, received_headers, until_its_end
from branchy.transport.kafka.topics import NO_GROUP
from branchy.transport.kafka.watermarks import watermarks

logger = logging.getLogger(__name__)

POLL_S = 0.1
CLOSE_TIMEOUT_S = 5.0


def reply_partition(replica: str, count: int) -> int:
    """A replica's ordinal, or crc32 of its name, modulo the partition count (`hash` differs per process)."""
    return (int(replica) if replica.isdecimal() else zlib.crc32(replica.encode())) % count


class KafkaInbox:
    """A `ReplyInbox`: one consumer in a thread of its own, reading from the end that was there when it opened."""

    def __init__(self, cluster: Cluster, topic: str, replica: str, sink: Sink, timeout_s: float) -> None:
        count = cluster.partitions(topic)
        if count == 0:
            raise TransportError(f"expected a topic that is there, got {topic}")
        partition = reply_partition(replica, count)
        self._address = KafkaAddress(topic, partition)
        self._cluster, self._topic = cluster, topic
        self._sink = sink
        extra = EMBEDDED_CONSUMER if cluster.embedded else {}
        group = {"group.id": f"branchy-replies-{topic}-{replica}"}  # librdkafka wants one; nothing ever joins it
        self._consumer = cluster.client(Consumer, CONSUMER, group, extra)
        try:
            # Not OFFSET_END: that is looked up later, and answers sent before it are lost.
            _, end = watermarks(self._consumer, topic, partition, timeout_s)
            self._consumer.assign([TopicPartition(topic, partition, end)])
        except KafkaException as error:
            self._consumer.close()
            raise cluster.unavailable(error, timeout_s) from None
        self._fetcher = Fetcher(self._consumer, cluster.name)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{cluster.name}-replies", daemon=True)
        self._thread.start()

    @property
    def address(self) -> KafkaAddress:
        """The topic and this replica's partition."""
        return self._address

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        with until_its_end(self._consumer, self._cluster.name, self._sink):
            while not self._closing.is_set():
                self._take_what_is_there()

    def _take_what_is_there(self) -> None:
        first = self._fetcher.first(POLL_S)
        if first is None:
            return
        came = [self._replied(first)]
        came += [self._replied(message) for message in self._fetcher.rest()]
        self._sink(*[reply for reply in came if reply is not None])

    def _replied(self, message: Any) -> Replied | None:
        if message.error() is not None and message.error().code() == NO_GROUP:
            return None
        found = self._fetcher.sift(message)
        if found is None or isinstance(found, Unreadable):
            return None
        headers, body = received_headers(message), message.value() or b""
        if headers is None:
            return None  # nothing of ours: who sent it waits for no word
        too_large = self._cluster.too_large(self._topic, headers, body)
        if too_large:
            self._fetcher.complain(f"{self._topic} offset {message.offset()} is left out: {too_large}")
            return None
        envelope = open_envelope(headers, lambda _: None)
        return Replied(envelope.correlation, Message(envelope.headers, body))
