"""Sends, and what became of each."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Hashable
from functools import partial
from typing import Any

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Producer

from branchy.errors import BranchyError, TransportError
from branchy.transport.base import Address, Message, SendError, Sent, Sink
from branchy.transport.kafka.addresses import KafkaAddress, reply_headers
from branchy.transport.kafka.cluster import Cluster
from branchy.transport.kafka.config import PRODUCER
from branchy.transport.kafka.topics import NOT_ALLOWED

logger = logging.getLogger(__name__)

POLL_S = 0.1
REPORTS_EVERY_S = 0.02
"""Reports are taken so far apart at least: nobody is in a hurry for them, and each look wakes a thread."""
CLOSE_TIMEOUT_S = 2.0
CLOCK_EVERY_S = 0.25
STATISTICS_MS = 100
REOPEN_S = 1.0
LOOK_TIMEOUT_S = 1.0
SAY_EVERY_S = 30.0

PERMANENT = frozenset(
    {
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.INVALID_RECORD,
        KafkaError.POLICY_VIOLATION,
        KafkaError.UNSUPPORTED_COMPRESSION_TYPE,
        KafkaError._INVALID_ARG,
    }
)
"""Errors that sending the same again cannot help."""

TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})


class KafkaSender:
    """A `Sender`: one idempotent producer, and a thread that serves its delivery reports."""

    def __init__(
        self, cluster: Cluster, sink: Sink, message_timeout_s: float, queue_limit: int, *, to_unprepared: bool = False
    ) -> None:
        self._cluster, self._sink, self._to_unprepared = cluster, sink, to_unprepared
        self._config = {
            "message.timeout.ms": max(1, round(message_timeout_s * 1000)),
            "queue.buffering.max.messages": queue_limit,
            "compression.type": cluster.settings.compression,
            "statistics.interval.ms": STATISTICS_MS,
            "stats_cb": self._on_statistics,
        }
        self._producer = self._open()
        self._reports: deque[Sent] = deque()
        self._handing_on = threading.Lock()
        self._clock_at_s = self._said_s = float("-inf")
        self._ready, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{cluster.name}-reports", daemon=True)
        self._thread.start()

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait for the producer id of idempotence: 0.5 to 1 s from opening (librdkafka asks twice a second)."""
        return self._ready.wait(timeout_s)

    def send(
        self,
        to: Address,
        message: Message,
        tag: Hashable,
        *,
        correlation: bytes | None = None,
        reply_to: Address | None = None,
    ) -> bool:
        """Queue a message; what librdkafka refuses at once is reported as `Sent` all the same.

        A producer that came to its end takes none, as if its queue were full, until there is a new one.
        """
        if self._closing.is_set():
            return False
        if not isinstance(to, KafkaAddress) or not isinstance(reply_to, KafkaAddress | None):
            raise TransportError(f"expected addresses of a Kafka link, got {to!r} and {reply_to!r}")
        headers = [*message.headers, *reply_headers(correlation, reply_to)]
        try:
            try:
                self._produce(to, message.body, headers, tag)
            except KafkaException as error:
                if error.args[0].code() != KafkaError._UNKNOWN_PARTITION:
                    raise
                self._producer.list_topics(to.topic, timeout=LOOK_TIMEOUT_S)  # it may have been added since
                self._produce(to, message.body, headers, tag)
        except BufferError:
            return False
        except KafkaException as error:
            if error.args[0].code() == KafkaError._FATAL:
                return False
            self._sink(Sent(tag, _send_error(error.args[0])))
        return True

    def _produce(self, to: KafkaAddress, body: bytes, headers: list[tuple[str, bytes]], tag: Hashable) -> None:
        self._producer.produce(
            to.topic,
            body,
            partition=-1 if to.partition is None else to.partition,
            headers=headers,
            on_delivery=partial(self._delivered, tag, time.monotonic()),
        )

    def purge(self) -> None:
        """Drop what is queued and what no broker has acknowledged."""
        self._producer.purge()

    def flush(self, timeout_s: float) -> int:
        """Wait for acknowledgements."""
        try:
            return int(self._producer.flush(timeout_s))
        except KafkaException:  # a fatal error; the thread is about to report what was queued
            return len(self._producer)
        finally:
            self._report()

    def close(self) -> None:
        """Drop what is left, report it, end the thread."""
        self._closing.set()
        self._thread.join(CLOSE_TIMEOUT_S)

    def _open(self) -> Any:
        return self._cluster.client(Producer, PRODUCER, self._config, self._cluster.limits(self._to_unprepared))

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                if self._producer.poll(POLL_S):
                    self._report()
                    self._closing.wait(REPORTS_EVERY_S)
            except KafkaException as error:
                logger.error("%s: opening a new producer: %s", self._cluster.name, error.args[0].str())
                self._reopen()
        self._end()

    def _reopen(self) -> None:
        """After a fatal error (its sequence numbers and the broker's disagree) a producer takes nothing more."""
        self._ready.clear()
        self._end()
        while not self._closing.wait(REOPEN_S):
            try:
                self._producer = self._open()
            except BranchyError as error:
                logger.error("%s", error)
            else:
                return

    def _end(self) -> None:
        """Give up what is left, so that each send is reported."""
        self._producer.purge()
        with contextlib.suppress(KafkaException):  # the fatal error, once more
            self._producer.flush(1.0)
        self._report()

    def _report(self) -> None:
        """Hand on what librdkafka has called back with so far."""
        with self._handing_on:
            reports = [self._reports.popleft() for _ in range(len(self._reports))]
        if reports:
            self._sink(*reports)

    def _on_statistics(self, text: str) -> None:
        """Nothing else says that the producer id is there."""
        if not self._ready.is_set() and json.loads(text).get("eos", {}).get("idemp_state") == "Assigned":
            self._ready.set()

    def _delivered(self, tag: Hashable, sent_s: float, error: Any, message: Any) -> None:
        if error is not None and error.code() in NOT_ALLOWED:
            self._say_not_allowed(message.topic())
        self._reports.append(Sent(tag, None if error is None else _send_error(error)))
        if error is None and sent_s - self._clock_at_s >= CLOCK_EVERY_S:
            self._clock_at_s = sent_s
            kind, timestamp_ms = message.timestamp()
            if kind == TIMESTAMP_LOG_APPEND_TIME and not self._cluster.embedded:
                self._cluster.clock.observe(sent_s, sent_s + message.latency(), timestamp_ms / 1000)

    def _say_not_allowed(self, topic: str) -> None:
        """A missing right looks like a front that is away, to who does not look for it."""
        now_s = time.monotonic()
        if now_s - self._said_s > SAY_EVERY_S:
            self._said_s = now_s
            logger.error("%s: the brokers do not allow this user to write to %s", self._cluster.name, topic)


def _send_error(error: Any) -> SendError:
    return SendError(error.str(), permanent=error.code() in PERMANENT, too_large=error.code() in TOO_LARGE)
