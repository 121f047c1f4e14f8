"""Requests from a topic, shared with the other members of a group."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import OFFSET_END, TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaException, TopicPartition

from branchy.core.settlement import SettlementTracker
from branchy.transport.base import Arrived, Delivery, Message, Revoked, Sink, Token
from branchy.transport.kafka.addresses import Assignment, KafkaToken, open_envelope
from branchy.transport.kafka.cluster import Cluster
from branchy.transport.kafka.config import CLASSIC_GROUP, CONSUMER, CONSUMER_GROUP, EMBEDDED_CONSUMER
from branchy.transport.kafka.fetch import BAD_NAME, Fetcher, Unreadable, received_headers, until_its_end
from branchy.transport.kafka.lag import LagReader

logger = logging.getLogger(__name__)

POLL_S = 0.1
PAUSED_POLL_S = 0.01
COMMIT_EVERY_S = 0.2
REVOKE_WAIT_S = 1.0
CLOSE_TIMEOUT_S = 5.0
WAKE_TIMEOUT_S = 0.2


class KafkaSource:
    """A `RequestSource`: one consumer, in a thread of its own that makes all of the consumer's calls."""

    def __init__(self, cluster: Cluster, topic: str, group: str, sink: Sink) -> None:
        self._cluster, self._topic, self._sink = cluster, topic, sink
        self._lock = threading.Lock()
        self._tracker: SettlementTracker[Assignment] = SettlementTracker()
        self._assignments: dict[int, Assignment] = {}
        self._committed: dict[Assignment, int] = {}
        self._rebalances = 0
        self._want_pause = self._is_paused = False
        self._ready, self._closing = threading.Event(), threading.Event()
        self._consumer = cluster.client(Consumer, CONSUMER, self._group(group))
        self._fetcher = Fetcher(self._consumer, cluster.name)
        self._lag_reader = LagReader(self._consumer)
        self._lag: int | None = None
        self._thread = threading.Thread(target=self._run, name=f"{cluster.name}-requests", daemon=True)

    def start(self) -> None:
        """Join the group."""
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        self._thread.start()

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait for the group's first word on this member's share."""
        return self._ready.wait(timeout_s)

    def settle(self, token: Token) -> None:
        """Make the offset committable, once all before it are."""
        if isinstance(token, KafkaToken):
            with self._lock:
                self._tracker.settle(token.assignment, token.offset)

    def pause(self) -> None:
        """Fetch nothing more, from the consumer thread's next turn on."""
        self._want_pause = True

    def resume(self) -> None:
        """Fetch again."""
        self._want_pause = False

    def unsettled(self) -> int:
        """Deliveries not settled yet."""
        with self._lock:
            return self._tracker.unsettled

    @property
    def lag(self) -> int | None:
        """As of the last look, some 0.2 s ago; None before the first fetch, and while the brokers are away."""
        return self._lag

    def close(self) -> None:
        """Commit, leave, end the thread."""
        if self._closing.is_set():
            return
        self._closing.set()
        if not self._thread.is_alive():
            self._consumer.close()
            return
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            logger.warning("%s: the consumer did not end within %g s", self._cluster.name, CLOSE_TIMEOUT_S)

    # --- the consumer's thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        with until_its_end(self._consumer, self._cluster.name, self._sink):
            try:
                self._work()
            finally:
                self._lag = None

    def _work(self) -> None:
        commit_at_s = time.monotonic() + COMMIT_EVERY_S
        while not self._closing.is_set():
            self._apply_pause()
            self._take_what_is_there()
            if time.monotonic() >= commit_at_s:
                commit_at_s = time.monotonic() + COMMIT_EVERY_S
                self._commit(self._uncommitted())
                self._look_at_lag()

    def _look_at_lag(self) -> None:
        known = self._ready.is_set() and self._cluster.watch.up
        mine = list(self._assignments.values())
        self._lag = self._lag_reader.read(mine, paused=self._is_paused) if known else None

    def _take_what_is_there(self) -> None:
        first = self._fetcher.first(PAUSED_POLL_S if self._is_paused else POLL_S)
        if first is None:
            return
        now_s, rebalances = time.monotonic(), self._rebalances
        # Tracked before anything else is fetched: a rebalance in between gives the same partition a new epoch,
        # in which this message must not be settled before those that come again.
        deliveries = [self._delivery(first, now_s)]
        deliveries += [self._delivery(message, now_s) for message in self._fetcher.rest()]
        mine = [delivery for delivery in deliveries if delivery is not None]
        if rebalances != self._rebalances:
            mine = [delivery for delivery in mine if self._owns(delivery.token)]
        if mine:
            self._sink(Arrived(mine))

    def _delivery(self, message: Any, now_s: float) -> Delivery | None:
        found = self._fetcher.sift(message)
        if isinstance(found, Unreadable):
            return self._fault(found)
        if found is None:
            return None
        token = self._track(message.partition(), message.offset())
        if token is None:
            return None
        headers, body = received_headers(message), message.value() or b""
        too_large = self._cluster.too_large(self._topic, headers or (), body)
        if too_large:  # no dead letter could hold it
            return Delivery(token, Message((), b""), 0.0, None, None, f"{token} is left out: {too_large}")
        if headers is None:
            return Delivery(token, Message((), body), 0.0, None, None, f"{token} is left without headers: {BAD_NAME}")
        envelope = open_envelope(headers, self._cluster.complaint)
        return Delivery(
            token,
            Message(envelope.headers, body),
            self._age_s(message, now_s),
            envelope.reply_to,
            envelope.correlation,
            envelope.fault,
        )

    def _fault(self, batch: Unreadable) -> Delivery | None:
        """One delivery for the whole batch; settled, it lets its last offset be committed."""
        token = self._track(batch.partition, batch.last)
        if token is None:
            return None
        return Delivery(token, Message((), b""), 0.0, None, None, f"{batch} cannot be read: {batch.why}")

    def _track(self, partition: int, offset: int) -> KafkaToken | None:
        """None for what is no longer ours (a rebalance within the same fetch) or is being worked on already."""
        with self._lock:
            assignment = self._assignments.get(partition)
            if assignment is None or not self._tracker.track(assignment, offset):
                return None
        return KafkaToken(assignment, offset)

    def _owns(self, token: Token) -> bool:
        return isinstance(token, KafkaToken) and self._assignments.get(token.assignment.partition) == token.assignment

    def _age_s(self, message: Any, now_s: float) -> float:
        kind, timestamp_ms = message.timestamp()
        if kind != TIMESTAMP_LOG_APPEND_TIME or self._cluster.embedded:
            return 0.0  # a device's own clock may be anywhere
        return self._cluster.clock.age_s(timestamp_ms / 1000, now_s)

    def _apply_pause(self) -> None:
        if self._want_pause == self._is_paused:
            return
        self._is_paused = self._want_pause
        partitions = self._consumer.assignment()
        if self._is_paused:
            self._consumer.pause(partitions)
        elif partitions:
            self._consumer.resume(partitions)
            self._fetcher.seek_again()
            self._wake_leaders(partitions)

    def _wake_leaders(self, partitions: Sequence[Any]) -> None:
        """Have resumed partitions fetched at once.

        librdkafka's thread for a broker looks for them once a second, or after any request to
        that broker: resuming took 0.6 s without this one and takes 8 ms with it.
        """
        ends = [TopicPartition(each.topic, each.partition, OFFSET_END) for each in partitions]
        with contextlib.suppress(KafkaException):  # then it takes its second
            self._consumer.offsets_for_times(ends, timeout=WAKE_TIMEOUT_S)

    # --- group -------------------------------------------------------------------------------------------------------

    def _group(self, group: str) -> dict[str, Any]:
        config: dict[str, Any] = {"group.id": group, "on_commit": self._on_commit}
        if self._cluster.embedded:
            config |= EMBEDDED_CONSUMER
        protocol = self._cluster.settings.group_protocol or ("consumer" if self._cluster.embedded else "classic")
        if protocol == "classic":
            return config | CLASSIC_GROUP
        return config | CONSUMER_GROUP | {"statistics.interval.ms": 200, "stats_cb": self._on_statistics}

    def _on_statistics(self, text: str) -> None:
        """The `consumer` protocol calls nobody back for a member without a share; its join state tells."""
        if not self._ready.is_set() and json.loads(text).get("cgrp", {}).get("join_state") == "steady":
            self._ready.set()

    def _on_assign(self, consumer: Any, partitions: Sequence[Any]) -> None:
        with self._lock:
            self._rebalances += 1
            for each in partitions:
                self._assignments[each.partition] = Assignment(each.topic, each.partition, self._rebalances)
        self._fetcher.restart((each.topic, each.partition) for each in partitions)
        consumer.incremental_assign(partitions)
        if self._is_paused:
            consumer.pause(partitions)
        self._ready.set()

    def _on_revoke(self, consumer: Any, partitions: Sequence[Any]) -> None:
        gone = self._take_away(partitions)
        tokens = self._open(gone)
        if tokens and not self._closing.is_set():
            done = threading.Event()
            self._sink(Revoked(tokens, done))
            done.wait(REVOKE_WAIT_S)
        self._commit_at_last(gone)
        self._forget(gone)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Any, partitions: Sequence[Any]) -> None:
        self._ready.clear()  # the group has put this member out, and may take it in again
        gone = self._take_away(partitions)
        tokens = self._open(gone)
        self._forget(gone)
        if tokens:
            self._sink(Revoked(tokens, threading.Event(), lost=True))
        consumer.incremental_unassign(partitions)

    def _take_away(self, partitions: Sequence[Any]) -> list[Assignment]:
        with self._lock:
            self._rebalances += 1
            gone = [self._assignments.pop(each.partition, None) for each in partitions]
        return [assignment for assignment in gone if assignment is not None]

    def _open(self, assignments: Sequence[Assignment]) -> frozenset[KafkaToken]:
        with self._lock:
            return frozenset(KafkaToken(a, offset) for a in assignments for offset in self._tracker.open(a))

    def _forget(self, assignments: Sequence[Assignment]) -> None:
        with self._lock:
            for assignment in assignments:
                self._tracker.forget(assignment)
                self._committed.pop(assignment, None)

    # --- commits -----------------------------------------------------------------------------------------------------

    def _uncommitted(self) -> dict[Assignment, int]:
        with self._lock:
            found = self._tracker.committables()
        return {key: position for key, position in found.items() if self._committed.get(key) != position}

    def _commit(self, positions: Mapping[Assignment, int]) -> None:
        """Asynchronous: librdkafka gives a partition up only when its commits are done."""
        if not positions:
            return
        offsets = [TopicPartition(key.topic, key.partition, position) for key, position in positions.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self._fetcher.complain(f"cannot commit: {error.args[0].str()}")
        else:
            self._committed.update(positions)

    def _on_commit(self, error: Any, partitions: Sequence[Any]) -> None:
        failed = error or next((each.error for each in partitions if each.error is not None), None)
        if failed is not None:
            logger.info("%s: a commit failed and is repeated: %s", self._cluster.name, failed.str())
            self._committed.clear()

    def _commit_at_last(self, assignments: Sequence[Assignment]) -> None:
        """Not while the brokers are known to be away: closing waits for a commit as long as a session lasts, 45 s."""
        positions = {key: position for key, position in self._uncommitted().items() if key in assignments}
        if self._cluster.watch.up:
            self._commit(positions)
        elif positions:
            logger.warning("%s: the brokers are away; what was answered last will come again", self._cluster.name)
