"""The world that faults happen in: three nodes of Kafka, two replicas of each tier, and proxies on the links up.

Each node has a listener of its own for each link, advertised with a proxy's port: who bootstraps there stays on
the proxies. A tier's `--front` does; `--back`, and the device, speak to the nodes directly.
"""

from __future__ import annotations

import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from groups import owned, wait_for_shares
from prometheus_client.parser import text_string_to_metric_families

from branchy.brokers.apache_kafka import KafkaCluster
from branchy.brokers.kafka_config import HOST, NodePlan, free_ports
from branchy.brokers.kafka_home import KafkaHome
from branchy.core import topics
from branchy.errors import BranchyError
from branchy.runner.processes import Child, Processes, branchy
from branchy.runner.stand import tier_stages
from branchy.store.bundle import Bundle
from branchy.transport.kafka.topics import PARTITIONS
from chaos.toxiproxy import Toxiproxy

NODES = 3
REPLICAS = (0, 1)
READY_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 15.0
CALL_TIMEOUT_S = 10.0
LOOK_S = 0.1
PENDING = "branchy_pending_requests"
_BREAKER = re.compile(
    r"^(\S+ \S+) \w+ \S+: circuit breaker (?:open: (\d+) of the last (\d+) forwards failed|(closed))", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class BreakerChange:
    """What a replica's log says of its breaker.

    Attributes:
        tier: the tier.
        replica: its number.
        at_s: when, by `time.time()`.
        failed: of the forwards that opened it; None when it closed.
        outcomes: how many those were.
    """

    tier: str
    replica: int
    at_s: float
    failed: int | None = None
    outcomes: int | None = None

    @property
    def opened(self) -> bool:
        """Whether it opened."""
        return self.failed is not None


def pending_at(port: int) -> int:
    """How many requests wait for the front at the tier that serves its health there.

    Raises:
        BranchyError: it does not say.
    """
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=CALL_TIMEOUT_S) as response:
            families = list(text_string_to_metric_families(response.read().decode()))
    except OSError as error:
        raise BranchyError(f"the health port {port} of a tier does not answer: {error}") from None
    values = [sample.value for family in families for sample in family.samples if sample.name == PENDING]
    if not values:
        raise BranchyError(f"the health port {port} of a tier does not tell {PENDING}")
    return int(values[0])


class World:
    """Brokers, proxies and tiers; start it in a `with`, whose end stops the brokers.

    Args:
        folder: for data and logs.
        home: the Kafka.
        toxiproxy: its program.
        bundle: what the tiers run.
        processes: owns tiers and proxies.
        java_options: of a node.
    """

    def __init__(
        self,
        folder: Path,
        home: KafkaHome,
        toxiproxy: Path,
        bundle: Bundle,
        processes: Processes,
        java_options: tuple[str, ...],
    ) -> None:
        self.bundle = bundle
        self.stages = tier_stages(bundle.spec)
        self.tiers = tuple(self.stages)
        self._folder, self._toxiproxy_program, self._processes = folder, toxiproxy, processes
        ports = iter(free_ports(2 * NODES * len(self.links) + len(self.replicas())))
        self._ports = {(link, n): (next(ports), next(ports)) for link in self.links for n in range(1, NODES + 1)}
        self._health_ports = {which: next(ports) for which in self.replicas()}
        self.cluster = KafkaCluster(
            home, folder / "kafka", nodes=NODES, java_options=java_options, more=self._listeners
        )
        self._children: dict[tuple[str, int], Child] = {}
        self._log_starts: dict[tuple[str, int], int] = {}

    @property
    def links(self) -> tuple[str, ...]:
        """A link up by the tier that it leads to."""
        return self.tiers[1:]

    def __enter__(self) -> World:
        """Start everything, and wait until each replica has its share."""
        self.cluster.start()
        try:
            self.proxies = Toxiproxy(self._toxiproxy_program, self._processes)
            for (link, node), (proxy, listener) in self._ports.items():
                self.proxies.create(f"{link}-{node}", proxy, listener)
            self.start(*self.replicas())
            self.wait_shared()
        except BaseException:
            self.cluster.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop the brokers."""
        self.cluster.stop()

    # --- links -----------------------------------------------------------------------------------------------------

    def proxies_of(self, link: str) -> Iterator[str]:
        """The names of the proxies of a link, one a node."""
        return (f"{link}-{node}" for node in range(1, NODES + 1))

    def _front(self, tier: str) -> str:
        above = self.tiers[self.tiers.index(tier) + 1]
        return ",".join(f"{HOST}:{self._ports[above, node][0]}" for node in range(1, NODES + 1))

    def _listeners(self, node: NodePlan, known: Mapping[str, str]) -> Mapping[str, str]:
        listeners, advertised, protocols = [], [], []
        for link in self.links:
            name, (proxy, listener) = f"TO_{link.upper()}", self._ports[link, node.id]
            listeners.append(f"{name}://{HOST}:{listener}")
            advertised.append(f"{name}://{HOST}:{proxy}")
            protocols.append(f"{name}:PLAINTEXT")
        more = {
            "listeners": listeners,
            "advertised.listeners": advertised,
            "listener.security.protocol.map": protocols,
        }
        return {key: ",".join([known[key], *values]) for key, values in more.items()}

    # --- tiers -----------------------------------------------------------------------------------------------------

    def replicas(self) -> list[tuple[str, int]]:
        """All replicas of all tiers."""
        return [(tier, replica) for tier in self.tiers for replica in REPLICAS]

    def start(self, *which: tuple[str, int]) -> None:
        """Start replicas of tiers, all at once, and wait until they take requests.

        Raises:
            BranchyError: one ended, or took too long.
        """
        for tier, replica in which:
            self.launch(tier, replica)
        for tier, replica in which:
            self._processes.wait_for_file(
                self._children[tier, replica], self._ready_file(tier, replica), READY_TIMEOUT_S
            )

    def launch(self, tier: str, replica: int) -> None:
        """Start a replica; returns before it is ready."""
        self._ready_file(tier, replica).unlink(missing_ok=True)
        log = self._log(tier, replica)
        self._log_starts[tier, replica] = log.stat().st_size if log.exists() else 0
        settings = self._folder / f"{tier}-{replica}.toml"
        settings.write_text(f'[back.options]\n"client.id" = "{tier}-{replica}"\n', encoding="utf-8")
        line = branchy("serve", "--bundle", self.bundle.path, "--tier", ",".join(self.stages[tier]))
        line += ["--config", str(settings)]
        line += ["--replica", str(replica), "--back", self.cluster.brokers]
        line += ["--ready-file", str(self._ready_file(tier, replica))]
        line += ["--health-host", HOST, "--health-port", str(self._health_ports[tier, replica])]
        if tier != self.tiers[-1]:
            line += ["--front", self._front(tier)]
        self._children[tier, replica] = self._processes.start(f"{tier}-{replica}", line)

    def kill(self, tier: str, replica: int) -> None:
        """End a replica with SIGKILL."""
        self._processes.kill(self._children[tier, replica])

    def stop(self, tier: str, replica: int) -> None:
        """Tell a replica to stop, and wait for that.

        Raises:
            BranchyError: it took too long, did not end well, or left something under way.
        """
        child = self._children[tier, replica]
        assert child.log is not None
        said = child.log.stat().st_size
        child.popen.terminate()
        try:
            code = child.popen.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise BranchyError(
                f"{child.name} was told to stop and still runs after {STOP_TIMEOUT_S:g} s: {child.last_words()}"
            ) from None
        last = child.log.read_text()[said:]
        if code != 0 or "not acknowledged" in last:
            raise BranchyError(f"{child.name} was told to stop and ended with {code}: {child.last_words()}")

    def pids(self) -> Mapping[str, int]:
        """The processes of the tiers, by name."""
        return {child.name: child.popen.pid for child in self._children.values()}

    def pending(self) -> Mapping[str, int]:
        """By replica how many requests wait for the front, by its own word."""
        return {f"{tier}-{replica}": pending_at(port) for (tier, replica), port in self._health_ports.items()}

    def check_alive(self) -> None:
        """See to it that every replica runs.

        Raises:
            BranchyError: one has ended by itself.
        """
        for child in self._children.values():
            if not child.is_alive:
                raise BranchyError(f"{child.name} ended by itself with {child.popen.returncode}: {child.last_words(2)}")

    def wait_shared(self) -> None:
        """Until every replica has its half of the partitions."""
        self.check_alive()
        for tier in self.tiers:
            wait_for_shares(self.cluster.brokers, self._group(tier), [PARTITIONS // len(REPLICAS)] * len(REPLICAS))

    def owned_by(self, tier: str, replica: int) -> frozenset[int]:
        """The partitions of a tier's queue that a replica has, by the broker's word."""
        return owned(self.cluster.brokers, self._group(tier)).get(f"{tier}-{replica}", frozenset())

    def breaker_changes(self) -> list[BreakerChange]:
        """All that the logs of the replicas that run say of their breakers, in order."""
        found = []
        for (tier, replica), start in self._log_starts.items():
            log = self._log(tier, replica).read_bytes()[start:].decode(errors="replace")
            for at, failed, outcomes, closed in _BREAKER.findall(log):
                at_s = datetime.strptime(at, "%Y-%m-%d %H:%M:%S,%f").timestamp()
                counts = () if closed else (int(failed), int(outcomes))
                found.append(BreakerChange(tier, replica, at_s, *counts))
        return sorted(found, key=lambda change: change.at_s)

    def open_breakers(self) -> set[tuple[str, int]]:
        """The replicas whose breakers are open."""
        last = {(change.tier, change.replica): change.opened for change in self.breaker_changes()}
        return {which for which, is_open in last.items() if is_open}

    def _ready_file(self, tier: str, replica: int) -> Path:
        return self._folder / f"{tier}-{replica}.ready"

    def _log(self, tier: str, replica: int) -> Path:
        return self._folder / f"{tier}-{replica}.log"

    def _group(self, tier: str) -> str:
        return f"branchy.{self.bundle.spec.name}.{tier}"

    # --- what the brokers hold -------------------------------------------------------------------------------------

    @property
    def first_requests(self) -> str:
        """The topic of the first tier's requests."""
        return topics.requests(self.bundle.spec.name, self.tiers[0])

    @property
    def device_answers(self) -> str:
        """The topic of the device's answers."""
        return topics.answers(self.bundle.spec.name, "device")

    def partitions_at(self, node: int, topic: str) -> tuple[frozenset[int], frozenset[int]]:
        """The partitions of a topic that a broker leads, and those that it has a copy of."""
        admin = AdminClient({"bootstrap.servers": self.cluster.brokers, "log_level": 0})
        partitions = admin.list_topics(topic, timeout=CALL_TIMEOUT_S).topics[topic].partitions.values()
        led = frozenset(each.id for each in partitions if each.leader == node)
        return led, frozenset(each.id for each in partitions if node in each.replicas)

    def wait_in_sync(self) -> None:
        """Until every partition has all its copies in sync."""
        admin = AdminClient({"bootstrap.servers": self.cluster.brokers, "log_level": 0})
        until_s = time.monotonic() + READY_TIMEOUT_S
        while True:
            listed = admin.list_topics(timeout=CALL_TIMEOUT_S).topics.values()
            behind = [each.topic for each in listed for p in each.partitions.values() if len(p.isrs) < len(p.replicas)]
            if not behind:
                return
            if time.monotonic() > until_s:
                raise BranchyError(f"not in sync after {READY_TIMEOUT_S:g} s: {', '.join(sorted(set(behind)))}")
            time.sleep(LOOK_S)

    def dead_letters(self) -> int:
        """How many messages lie in all tiers' dead letters."""
        return sum(
            end for tier in self.tiers for end in self._ends(topics.dead_letters(self.bundle.spec.name, tier)).values()
        )

    def uncommitted(self, tier: str) -> int:
        """How many messages of a tier's queue are not settled yet, by the broker's word."""
        topic = topics.requests(self.bundle.spec.name, tier)
        ends = self._ends(topic)
        with closing(self._consumer(self._group(tier))) as consumer:
            committed = consumer.committed([TopicPartition(topic, partition) for partition in ends], CALL_TIMEOUT_S)
        return sum(ends[place.partition] - max(0, place.offset) for place in committed)

    def _ends(self, topic: str) -> Mapping[int, int]:
        with closing(self._consumer("chaos-counts")) as consumer:
            places = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
            return {p.partition: consumer.get_watermark_offsets(p, timeout=CALL_TIMEOUT_S)[1] for p in places}

    def _consumer(self, group: str) -> Consumer:
        return Consumer({"bootstrap.servers": self.cluster.brokers, "group.id": group, "log_level": 0})
