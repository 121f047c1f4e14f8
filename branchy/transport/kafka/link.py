"""One side's Kafka brokers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from branchy.config import LinkSettings
from branchy.core.access import Rule
from branchy.transport.base import Capabilities, Delivery, ReplyInbox, RequestSource, Sender, Sink
from branchy.transport.kafka.addresses import KafkaAddress
from branchy.transport.kafka.browse import browse
from branchy.transport.kafka.cluster import Cluster
from branchy.transport.kafka.replies import KafkaInbox
from branchy.transport.kafka.sender import KafkaSender
from branchy.transport.kafka.source import KafkaSource

CONNECT_TIMEOUT_S = 10.0


class KafkaLink:
    """A `Link` to Kafka brokers, real ones or the embedded one; nothing is connected before it is needed.

    Args:
        settings: brokers, security, group protocol.
        name: in logs and `LinkState` events, such as `back`.
        reply_prefix: reply addresses that come from outside must have topics that start so.
    """

    def __init__(self, settings: LinkSettings, name: str, *, reply_prefix: str = "branchy.") -> None:
        self._cluster = Cluster(settings, name, reply_prefix)

    @property
    def capabilities(self) -> Capabilities:
        """What these brokers can do; of the embedded one known once `prepare` returned."""
        real = not self._cluster.embedded
        return Capabilities(append_time=real, admin=real, redelivers=True, replicas=True)

    def queue(self, name: str) -> KafkaAddress:
        """A topic, any partition."""
        return KafkaAddress(name)

    def prepare(
        self, names: Sequence[str], timeout_s: float, largest: Mapping[str, int] | None = None
    ) -> Mapping[str, int]:
        """Create the topics that are not there, read what they take, and log how those that are there differ."""
        return self._cluster.prepare(names, timeout_s, largest)

    def create_topics(
        self, largest: Mapping[str, int], *, partitions: int, replication: int | None, timeout_s: float
    ) -> list[str]:
        """Create the topics that are not there, for an operator; hold the others against what they should be.

        Args:
            largest: by topic the bytes of the largest body that it must take.
            partitions: of each that is made; one that is there may have more.
            replication: copies of each that is made; None takes the brokers' default.
            timeout_s: how long to wait for the brokers.

        Returns:
            Those that were created.

        Raises:
            BrokerUnavailableError: no broker answered in time.
            TransportError: a topic that is there does not fit (the message names what differs), or one
                cannot be made.
        """
        return self._cluster.create(largest, partitions, replication, timeout_s)

    def allow(self, rules: Sequence[Rule], timeout_s: float) -> None:
        """Give users their rights, for an operator; what they had before stays.

        Raises:
            BrokerUnavailableError: no broker answered in time.
            TransportError: they keep no rules.
            RefusedError: this user may not give any.
        """
        self._cluster.allow(rules, timeout_s)

    def check_may_write(self, name: str, timeout_s: float) -> None:
        """Ask the brokers, before there is anything to write."""
        self._cluster.check_may_write(name, timeout_s)

    def requests(self, name: str, group: str, sink: Sink) -> RequestSource:
        """A member of a group; connects first, to know what kind of brokers these are."""
        self._cluster.connect(CONNECT_TIMEOUT_S)
        self._cluster.check_may_read(name, CONNECT_TIMEOUT_S, group)
        self._cluster.watch.add(sink)
        return KafkaSource(self._cluster, name, group, sink)

    def replies(self, name: str, replica: str, sink: Sink, timeout_s: float) -> ReplyInbox:
        """An inbox that reads from the end of the replica's partition on."""
        self._cluster.connect(timeout_s)
        self._cluster.check_may_read(name, timeout_s)
        self._cluster.watch.add(sink)
        return KafkaInbox(self._cluster, name, replica, sink, timeout_s)

    def browse(self, name: str, timeout_s: float) -> Iterator[Delivery]:
        """Every partition up to the end that it has now; ages are by this machine's clock."""
        self._cluster.connect(timeout_s)
        self._cluster.check_may_read(name, timeout_s)
        return browse(self._cluster, name, timeout_s)

    def sender(self, sink: Sink, *, message_timeout_s: float, queue_limit: int, to_unprepared: bool = False) -> Sender:
        """A producer of its own; its batches are small where it cannot know what topics take."""
        self._cluster.watch.add(sink)
        return KafkaSender(self._cluster, sink, message_timeout_s, queue_limit, to_unprepared=to_unprepared)

    def close(self) -> None:
        """Forget the brokers; sources, inboxes and senders are closed by who opened them."""
        self._cluster.close()
