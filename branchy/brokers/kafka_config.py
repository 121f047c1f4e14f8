"""A Kafka cluster on this machine as data: its nodes, their ports and their settings.

KRaft, controller and broker in one process a node, loopback only. What a node is told is
what KAFKA's defaults would get wrong for tiers that must notice a dead broker within seconds.
"""

from __future__ import annotations

import base64
import json
import random
import re
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from branchy.brokers.kafka_users import OPERATOR, RESERVED, USERS, partial_of, server_security, write_private
from branchy.brokers.running import LOCK_FILE, USERS_FOLDER
from branchy.errors import BranchyError, UsageError

HOST = "127.0.0.1"
CERTIFIED_HOSTS = f"IP:{HOST},DNS:localhost"
PLAN_FILE = "cluster.json"
DATA_FOLDER = "data"
"""A node's data, in the node's folder."""

PORTS = range(20_000, 32_000)
"""Where free ports are looked for: below those that systems give to outgoing connections, which come and go."""

FAIL_OVER = {
    # A broker that died: noticed by the controller, its partitions led by others. Defaults: 9 s, 2 s.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
    # A controller that died: noticed by the others, one of them elected. Defaults: 2 s, 1 s, 1 s, 2 s.
    "controller.quorum.fetch.timeout.ms": "1000",
    "controller.quorum.election.timeout.ms": "500",
    "controller.quorum.election.backoff.max.ms": "500",
    "controller.quorum.request.timeout.ms": "1000",
}

GROUPS = {
    # KIP-848 groups: the broker's word rules. Defaults: 45 s, 5 s.
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.session.timeout.ms": "3000",
    "group.consumer.heartbeat.interval.ms": "300",
    "group.consumer.min.heartbeat.interval.ms": "100",
    # Classic groups: a first member waits for others. Default: 3 s.
    "group.initial.rebalance.delay.ms": "100",
}

SIZE = {
    # For one machine and a small heap. Defaults: 50 partitions each, 128 MB of heap, 8 threads.
    "offsets.topic.num.partitions": "6",
    "transaction.state.log.num.partitions": "6",
    "share.coordinator.state.topic.num.partitions": "6",
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    "num.io.threads": "4",
}

LOGGING = """\
status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = kafka.log
appender.file.filePattern = kafka.log.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = [%d] %p %m (%c)%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 16MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
"""
"""log4j2's settings; file names count from the node's folder."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node: its number from 1 on, the port clients use, and the controllers' own."""

    id: int
    port: int
    controller_port: int


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """What a data folder is for.

    Attributes:
        cluster_id: Kafka's, 22 characters.
        nodes: by their numbers.
        security: Kafka's security protocol, of every listener.
        users: who may log in, besides the nodes and the operator.
    """

    cluster_id: str
    nodes: tuple[NodePlan, ...]
    security: str = "PLAINTEXT"
    users: tuple[str, ...] = ()

    @property
    def brokers(self) -> str:
        """`HOST:PORT[,...]` for clients."""
        return ",".join(f"{HOST}:{node.port}" for node in self.nodes)


MoreSettings = Callable[[NodePlan, Mapping[str, str]], Mapping[str, str]]


def plan_cluster(
    data: Path, nodes: int | None, port: int | None, security: str | None = None, users: Sequence[str] = ()
) -> ClusterPlan:
    """What runs in a data folder: what ran there before, else something new; nothing is written.

    Args:
        data: the folder; it may not be there yet.
        nodes: how many nodes; None takes as many as before, or one.
        port: of the first node, the others follow; None takes those of before, or free ones.
        security: Kafka's security protocol; None takes that of before, or `PLAINTEXT`.
        users: besides those of before; none of both are the usual ones.

    Raises:
        BranchyError: the folder is of something else, of another number of nodes or of another security, a user's
            name cannot be one, or a port is in use.
    """
    known = read_plan(data)
    if known is None:
        controller_ports = free_ports(nodes or 1)
        ports = free_ports(nodes or 1, but=controller_ports) if port is None else range(port, port + (nodes or 1))
        members = zip(ports, controller_ports, strict=True)
        members_plan = tuple(NodePlan(n, *both) for n, both in enumerate(members, 1))
        plan = ClusterPlan(_new_cluster_id(), members_plan, security or "PLAINTEXT")
    else:
        plan = known if port is None else _moved(known, port)
        if nodes not in (None, len(plan.nodes)):
            raise UsageError(
                f"{data} holds a cluster of {len(plan.nodes)} nodes, asked for were {nodes}: "
                "name another folder with --data, or delete this one"
            )
        if security not in (None, plan.security):
            raise UsageError(
                f"{data} holds a cluster whose clients use {plan.security}, asked for was {security}: leave --tls and "
                "--sasl out, name another folder with --data, or delete this one"
            )
    plan = replace(plan, users=_users(plan, users))
    for node in plan.nodes:
        if not port_is_free(node.port):
            whose = "is in use" if port is not None else "that this cluster had before is in use now"
            raise BranchyError(f"port {node.port} {whose}; name another with --port")
    return _with_free_controllers(plan)


def read_plan(data: Path) -> ClusterPlan | None:
    """The plan in a data folder; None when the folder is not there, or has only what a start leaves before its plan.

    Raises:
        UsageError: there is something else in the folder.
    """
    file = data / PLAN_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        nodes = tuple(NodePlan(**node) for node in content["nodes"])
        security, users = str(content.get("security", "PLAINTEXT")), tuple(map(str, content.get("users", ())))
        return ClusterPlan(str(content["cluster_id"]), nodes, security, users)
    except FileNotFoundError:
        before = {USERS_FOLDER, LOCK_FILE, partial_of(file).name}
        if not data.exists() or {found.name for found in data.iterdir()} <= before:
            return None
        raise UsageError(
            f"{data}: expected an empty folder or one of an earlier 'branchy broker start', found other files there; "
            "name another with --data"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file}: expected what 'branchy broker start' writes ({error!r:.80})") from None


def write_plan(data: Path, plan: ClusterPlan, more: MoreSettings | None = None) -> None:
    """Keep the plan, and write each node's settings, with `more` of them, into its folder.

    The plan comes first, and is left alone where it is the same: without it the rest is nobody's.
    """
    if read_plan(data) != plan:
        data.mkdir(parents=True, exist_ok=True)
        write_private(data / PLAN_FILE, json.dumps(asdict(plan), indent=2) + "\n")
    for node in plan.nodes:
        folder = node_folder(data, node)
        folder.mkdir(parents=True, exist_ok=True)
        settings = server_properties(plan, node)
        settings = {**settings, **(more(node, settings) if more else {})}
        lines = [f"{key}={value}\n" for key, value in settings.items()]
        (folder / "server.properties").write_text("".join(lines), encoding="ascii")
        (folder / "log4j2.properties").write_text(LOGGING, encoding="ascii")


def node_folder(data: Path, node: NodePlan) -> Path:
    """Where one node has its settings, logs, address file and data; it runs in there."""
    return data / f"node-{node.id}"


def server_properties(plan: ClusterPlan, node: NodePlan) -> Mapping[str, str]:
    """One node's settings, for KRaft's combined mode."""
    copies = str(len(plan.nodes))
    least_in_sync = str(min(2, len(plan.nodes)))
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.id),
        "controller.quorum.voters": ",".join(f"{n.id}@{HOST}:{n.controller_port}" for n in plan.nodes),
        "listeners": f"CLIENTS://{HOST}:{node.port},CONTROLLER://{HOST}:{node.controller_port}",
        "advertised.listeners": f"CLIENTS://{HOST}:{node.port}",
        "listener.security.protocol.map": f"CLIENTS:{plan.security},CONTROLLER:{plan.security}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "CLIENTS",
        "log.dirs": DATA_FOLDER,
        "auto.create.topics.enable": "false",
        "default.replication.factor": copies,
        "min.insync.replicas": least_in_sync,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": least_in_sync,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": least_in_sync,
        **FAIL_OVER,
        **GROUPS,
        **SIZE,
        **server_security(plan.security),
    }


def port_is_free(port: int) -> bool:
    """Whether a server could listen on a port of the loopback now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: closed connections don't count
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_ports(count: int, but: list[int] | None = None) -> list[int]:
    """Free ports of the loopback, none twice.

    Raises:
        BranchyError: there are not as many.
    """
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if len(found) == count:
            break
        if port not in (but or []) and port_is_free(port):
            found.append(port)
    if len(found) < count:
        raise BranchyError(f"expected {count} free ports from {PORTS[0]} to {PORTS[-1]} on {HOST}, found {len(found)}")
    return found


def _users(plan: ClusterPlan, more: Sequence[str]) -> tuple[str, ...]:
    """Those of the plan and more, each once."""
    if plan.security == "PLAINTEXT":
        if more:
            raise UsageError("users are for a broker with --tls or --sasl, got neither")
        return ()
    for name in more:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name) or name in RESERVED:
            raise UsageError(
                f"user {name!r:.80}: expected up to 63 letters, digits, dots, dashes and underscores, and none of "
                f"{', '.join(sorted(RESERVED))}"
            )
    names = dict.fromkeys((*plan.users, *more)) or dict.fromkeys(USERS)
    return tuple(name for name in names if name != OPERATOR)


def _moved(plan: ClusterPlan, port: int) -> ClusterPlan:
    return replace(plan, nodes=tuple(replace(node, port=port + n) for n, node in enumerate(plan.nodes)))


def _with_free_controllers(plan: ClusterPlan) -> ClusterPlan:
    """Controllers' ports matter to nobody else, so those in use, or asked for, give way."""
    ports = [node.port for node in plan.nodes]
    taken = [n for n in plan.nodes if n.controller_port in ports or not port_is_free(n.controller_port)]
    kept = [n.controller_port for n in plan.nodes if n not in taken]
    fresh = dict(zip((n.id for n in taken), free_ports(len(taken), but=ports + kept), strict=True))
    return replace(
        plan, nodes=tuple(replace(n, controller_port=fresh.get(n.id, n.controller_port)) for n in plan.nodes)
    )


def _new_cluster_id() -> str:
    """As Kafka makes its own: a random UUID in URL-safe base64, which must not look like an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text
