"""What a link knows of its brokers: what kind they are, their topics, their limits, their clock."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AclOperation, AdminClient

from branchy.config import LinkSettings
from branchy.core.access import Rule
from branchy.core.topics import NOT_FOR_ANSWERS
from branchy.errors import BrokerUnavailableError, RefusedError, TransportError
from branchy.transport.kafka import access, topics
from branchy.transport.kafka.addresses import KafkaAddress
from branchy.transport.kafka.clock import ClockOffset
from branchy.transport.kafka.config import CLIENT_LIMIT_BYTES, broker_addresses, client_config, open_client
from branchy.transport.kafka.listener import mismatch
from branchy.transport.kafka.topic_settings import ROOM_BYTES, differences
from branchy.transport.kafka.watch import LinkWatch, refusal_in

logger = logging.getLogger(__name__)
T = TypeVar("T")

EMBEDDED_CLUSTER = "mockCluster"
"""librdkafka's mock cluster says so in its cluster id."""

MAX_BATCH_BYTES = 1_000_000
UNPREPARED_BATCH_BYTES = ROOM_BYTES // 2
"""Where topics are sent to whose limits are not known, such as those that answers are asked for in: far below what
branchy expects them to take, as a batch that is too large takes every answer in it along. Its price: 10,000 answers
of 1 kB at once left at 11,000 to 28,000 a second, in batches of 1 MB at 32,000 to 88,000 (one node, two busy cores); a
tier makes some thousands a second."""

FIRST_PATIENCE_S = 0.5
"""How long the first attempt at brokers may take; each later one may take twice as long."""

MIN_PATIENCE_S = 0.1
REFRESH_S = 0.2
"""Least time between two looks for a topic that is not known, so that wrong reply addresses cost little."""


class Cluster:
    """One link's brokers.

    Attributes:
        embedded: whether they are librdkafka's mock cluster; known once `connect` returned.
        clock: the offset of their clock.
        watch: tells whether they can be reached.
    """

    def __init__(self, settings: LinkSettings, name: str, reply_prefix: str) -> None:
        self.settings, self.name = settings, name
        self.embedded = False
        self.clock = ClockOffset()
        self.watch = LinkWatch(name, self._answers)
        self._reply_prefix = reply_prefix
        self._lock = threading.Lock()
        self._admin: Any = None
        self._connected = False
        self._partitions: dict[str, int] = {}
        self._copies: dict[str, int] = {}
        self._brokers: frozenset[int] = frozenset()
        self._limits: dict[str, int] = {}
        self._looked_s = float("-inf")
        self._refusal: str | None = None

    def client(self, kind: Callable[[dict[str, Any]], T], *parts: Mapping[str, Any]) -> T:
        """A librdkafka client: common settings, then `parts`, then the user's own options."""
        config = client_config(self.settings, self.name, self.watch.on_error)
        for part in (*parts, self.settings.options):
            config.update(part)
        return open_client(kind, config)

    def connect(self, timeout_s: float) -> None:
        """Find out what kind of brokers these are.

        Raises:
            BrokerUnavailableError: none answered in time.
            RefusedError: they refuse this client, or want another security protocol.
        """
        if self._connected:
            return
        self._refusal = None
        # Anew at each attempt: the address file may have changed. Its errors are this attempt's, not the link's.
        self._admin = self.client(AdminClient, {"error_cb": self._on_first_error})
        try:
            self._learn(self._first_metadata(timeout_s))
        except KafkaException as error:
            raise self.unavailable(error, timeout_s) from None
        self._connected = True

    def _first_metadata(self, timeout_s: float) -> Any:
        """Ask again until the time is up, or a refusal is known: librdkafka tells that only in between."""
        deadline_s, patience_s = time.monotonic() + timeout_s, FIRST_PATIENCE_S
        while True:
            left_s = max(0.1, deadline_s - time.monotonic())
            try:
                return self._admin.list_topics(timeout=min(patience_s, left_s))
            except KafkaException:
                self._admin.poll(0)
                where = broker_addresses(self.settings)
                if self._refusal is not None:
                    raise RefusedError(
                        f"{self.name}: the brokers at {where} refuse this client: {self._refusal}"
                    ) from None
                # Without a word from the brokers, a wrong protocol looks as if they were away; asked once.
                differs = mismatch(where, self.settings.security) if patience_s == FIRST_PATIENCE_S else None
                if differs is not None:
                    raise RefusedError(f"{self.name}: the broker at {differs}; check the security settings") from None
                if time.monotonic() > deadline_s - MIN_PATIENCE_S:
                    raise
            time.sleep(MIN_PATIENCE_S)
            patience_s *= 2

    def _on_first_error(self, error: Any) -> None:
        self._refusal = self._refusal or refusal_in(error)

    def check_may_read(self, topic: str, timeout_s: float, group: str | None = None) -> None:
        """See to it, before anybody waits for messages, that this user may read a topic, as a member of a group.

        Raises:
            RefusedError: it may not.
        """
        if self.embedded:
            return
        if not self._may(AclOperation.READ, topic, timeout_s):
            raise RefusedError(f"{self.name}: the brokers do not allow {self._who} to read {topic}")
        if group is not None and not self._may_read_as(group, topic, timeout_s):
            raise RefusedError(f"{self.name}: the brokers do not allow {self._who} to read as group {group}")

    def check_may_write(self, topic: str, timeout_s: float) -> None:
        """See to it, before there is anything to write, that this user may write to a topic.

        Raises:
            RefusedError: it may not.
        """
        self.connect(timeout_s)
        if not self.embedded and not self._may(AclOperation.WRITE, topic, timeout_s):
            raise RefusedError(f"{self.name}: the brokers do not allow {self._who} to write to {topic}")

    @property
    def _who(self) -> str:
        return f"user {self.settings.username}" if self.settings.username else "this client"

    def _may(self, operation: AclOperation, topic: str, timeout_s: float) -> bool:
        """Whether the brokers say so, or do not know the question: then doing it tells."""
        topic_alone = TopicCollection([topic])
        described = self._admin.describe_topics(
            topic_alone, include_authorized_operations=True, request_timeout=timeout_s
        )
        try:
            allowed = described[topic].result().authorized_operations
        except KafkaException as error:
            return error.args[0].code() not in topics.NOT_ALLOWED
        return not allowed or operation in allowed

    def _may_read_as(self, group: str, topic: str, timeout_s: float) -> bool:
        """Whether the brokers tell this user of a group, or say nothing in time: then reading itself tells.

        It is a consumer that asks, not the admin client: where that one's `describe_consumer_groups` runs out
        of time, librdkafka 2.16 ends the process (https://github.com/confluentinc/librdkafka/pull/5397).
        """
        deadline_s = time.monotonic() + timeout_s
        consumer: Any = self.client(Consumer, {"group.id": group})
        try:
            while time.monotonic() < deadline_s:
                try:
                    (place,) = consumer.committed([TopicPartition(topic, 0)], timeout=FIRST_PATIENCE_S)
                except KafkaException as failed:
                    message = consumer.poll(0)
                    errors = [failed.args[0], message and message.error()]
                else:
                    errors = [place.error]
                    deadline_s = 0.0
                if any(error and error.code() in topics.NOT_ALLOWED for error in errors):
                    return False
            return True
        finally:
            consumer.close()

    def prepare(
        self, names: Sequence[str], timeout_s: float, largest: Mapping[str, int] | None = None
    ) -> Mapping[str, int]:
        """See `Link.prepare`."""
        deadline_s = time.monotonic() + timeout_s
        self.connect(timeout_s)
        needed = {name: (largest or {}).get(name, 0) for name in names}
        limits = dict.fromkeys(names, CLIENT_LIMIT_BYTES)
        try:
            if self.embedded:
                topics.touch(self._admin, names, deadline_s)
                self._learn(self._admin.list_topics(timeout=max(0.1, deadline_s - time.monotonic())))
            else:
                copies = topics.default_copies(self._admin, self._brokers, deadline_s)
                known = self._partitions
                self._learn(topics.create_missing(self._admin, needed, known, deadline_s, copies=copies)[1])
                for name, found in topics.read_settings(self._admin, names, deadline_s).items():
                    limits[name] = int(found["max.message.bytes"])
                    self._warn_once(name, self._misfit(name, needed[name], copies, found))
        except KafkaException as error:
            raise self.unavailable(error, timeout_s) from None
        self._limits.update(limits)
        return {name: limit - topics.ENVELOPE_BYTES for name, limit in limits.items()}

    def create(
        self, largest: Mapping[str, int], partitions: int, replication: int | None, timeout_s: float
    ) -> list[str]:
        """See `KafkaLink.create_topics`."""
        deadline_s = time.monotonic() + timeout_s
        self.connect(timeout_s)
        if self.embedded:
            raise TransportError(f"{self.name}: the embedded broker takes no settings for topics; it makes them itself")
        try:
            self._learn(self._admin.list_topics(timeout=timeout_s))
            copies = replication or topics.default_copies(self._admin, self._brokers, deadline_s)
            created, metadata = topics.create_missing(
                self._admin, largest, self._partitions, deadline_s, partitions=partitions, copies=copies
            )
            self._learn(metadata)
            found = topics.read_settings(self._admin, largest, deadline_s)
        except KafkaException as error:
            raise self.unavailable(error, timeout_s) from None
        # Of what was just made, too: where nobody tells how many copies the brokers keep, it lacks settings for them.
        texts = [self._misfit(name, largest[name], copies, found.get(name), partitions) for name in largest]
        if misfits := [text for text in texts if text]:
            how = "" if copies else ", with --replication: the brokers do not tell this user how many copies they keep"
            raise TransportError(
                f"{'; '.join(misfits)}; alter what differs, or delete the topic and create it again{how}"
            )
        return created

    def allow(self, rules: Sequence[Rule], timeout_s: float) -> None:
        """See `KafkaLink.allow`."""
        deadline_s = time.monotonic() + timeout_s
        self.connect(timeout_s)
        if self.embedded:
            raise TransportError(f"{self.name}: the embedded broker keeps no rules: whoever reaches it may do all")
        try:
            access.create(self._admin, access.bindings(rules), deadline_s)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.SECURITY_DISABLED:
                raise TransportError(
                    f"{self.name}: the brokers keep no rules (they have no authorizer): whoever reaches them may do all"
                ) from None
            raise self.unavailable(error, timeout_s) from None

    def _misfit(
        self, name: str, largest_bytes: int, copies: int | None, found: Mapping[str, str] | None, partitions: int = 0
    ) -> str:
        """What differs of a topic that is there, empty for nothing; None for what we may not know.

        How many partitions it should have is the operator's to say, and whoever only uses it does not know.
        """
        has_partitions, has_copies = self._partitions.get(name, partitions), self._copies.get(name, copies or 0)
        differs = [] if found is None else differences(name, largest_bytes, found, has_copies)
        if has_partitions < partitions:
            differs.append(f"it has {has_partitions} partitions, expected at least {partitions}")
        if has_copies < (copies or 0):
            differs.append(f"it has {has_copies} copies of each message, expected at least {copies}")
        return f"topic {name}: {', '.join(differs)}" if differs else ""

    def partitions(self, topic: str, wanted: int | None = None) -> int:
        """How many partitions a topic has, 0 when it is not there.

        A topic that is not known, or has too few for the one that is wanted, is looked up now and then.
        """
        if self._partitions.get(topic, 0) <= (wanted or 0):
            self._look()
        return self._partitions.get(topic, 0)

    def complaint(self, address: KafkaAddress) -> str | None:
        """Why nothing may be sent to this reply address, which came from outside; None when it may."""
        if not address.topic.startswith(self._reply_prefix):
            return f"reply topic {address.topic!r:.80} does not start with {self._reply_prefix!r}"
        if address.topic.endswith(NOT_FOR_ANSWERS):
            return f"reply topic {address.topic!r:.80} is not for answers"
        count = self.partitions(address.topic, address.partition)
        if count == 0:
            return f"reply topic {address.topic!r:.80} is not there"
        if address.partition is not None and not 0 <= address.partition < count:
            return f"reply topic {address.topic!r:.80} has {count} partitions, none is {address.partition}"
        return None

    def too_large(self, topic: str, headers: Sequence[tuple[str, bytes | None]], body: bytes) -> str | None:
        """Why a message is more than its topic takes, as `prepare` learnt that: it came compressed. None for others."""
        size_bytes = len(body) + sum(len(name) + len(value or b"") for name, value in headers)
        if size_bytes <= self._limits.get(topic, math.inf):
            return None
        return f"it expands to {size_bytes} bytes, more than its topic takes"

    def limits(self, to_unprepared: bool = False) -> dict[str, int]:
        """A producer's size settings, from what `prepare` learnt: a batch must fit into every topic."""
        known = self._limits.values() or [CLIENT_LIMIT_BYTES]
        most_bytes = UNPREPARED_BATCH_BYTES if to_unprepared else MAX_BATCH_BYTES
        return {"message.max.bytes": max(known), "batch.size": min(most_bytes, max(1, min(known) - ROOM_BYTES))}

    def unavailable(self, error: KafkaException, timeout_s: float) -> TransportError:
        """The error for a person: which brokers, how long, and librdkafka's words."""
        if error.args[0].code() in topics.NOT_ALLOWED:
            words = KafkaError(error.args[0].code()).str()  # the brokers' own may be a whole request as Java prints it
            return RefusedError(f"{self.name}: the brokers do not allow it: {words}")
        where = broker_addresses(self.settings)
        return BrokerUnavailableError(
            f"{self.name}: no Kafka broker answered at {where} within {timeout_s:g} s ({error.args[0].str()}); "
            "is it running, and are address and security settings right?"
        )

    def close(self) -> None:
        """Forget the brokers."""
        self.watch.close()
        self._admin, self._connected = None, False

    def _learn(self, metadata: Any) -> None:
        self.embedded = str(metadata.cluster_id or "").startswith(EMBEDDED_CLUSTER)
        self._partitions = {
            name: len(topic.partitions) for name, topic in metadata.topics.items() if topic.error is None
        }
        self._copies = {
            name: min((len(each.replicas) for each in topic.partitions.values()), default=0)
            for name, topic in metadata.topics.items()
        }
        self._brokers = frozenset(metadata.brokers)

    def _warn_once(self, name: str, misfit: str) -> None:
        """A tier asks again until its brokers are all there; what differs is said once."""
        if misfit and name not in self._limits:
            logger.warning("%s: %s", self.name, misfit)

    def _look(self) -> None:
        with self._lock:
            if time.monotonic() - self._looked_s < REFRESH_S:
                return
            self._answers(1.0)
            self._looked_s = time.monotonic()

    def _answers(self, timeout_s: float) -> bool:
        if self._admin is None:
            self._admin = self.client(AdminClient)
        try:
            self._learn(self._admin.list_topics(timeout=timeout_s))
        except KafkaException as error:
            logger.debug("%s: metadata: %s", self.name, error)
            return False
        return True
