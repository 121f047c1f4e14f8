"""A real Apache Kafka on this machine: a cluster of one or three nodes in a data folder.

Each node is a Java process that holds the lock of its own file, and of the cluster's address
file: whatever becomes of who started them, any process can tell which live, and stop them.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from branchy.brokers import kafka_config as config
from branchy.brokers.address_file import AddressFile, BrokerRecord, only_one
from branchy.brokers.guard import Guard
from branchy.brokers.kafka_config import ClusterPlan, MoreSettings, NodePlan, node_folder
from branchy.brokers.kafka_home import KafkaHome
from branchy.brokers.kafka_users import BROKER, KafkaUsers
from branchy.brokers.running import (
    LOCK_FILE,
    NODE_FILE,
    check_nothing_runs,
    running_broker,
    stop_broker,
    stop_processes,
)
from branchy.errors import BranchyError

READY_TIMEOUT_S = 60.0
JAVA_OPTIONS = ("-Xmx384m", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20")
"""Of a node."""

TOOL_OPTIONS = ("-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Of Kafka's own tools, which run for a second: compiling much would take longer than it saves."""

_CONSOLE = "console.log"
"""What a node's Java says by itself; Kafka's own log is `kafka.log` beside it."""


class KafkaCluster:
    """A cluster on this machine.

    Args:
        home: the Kafka to run.
        data: its folder: the plan, and a folder a node.
        nodes: how many, 1 or 3; None takes as many as before in this folder, or one.
        port: of the first node, the others follow; None takes those of before, or free ones.
        security: Kafka's security protocol, of all listeners; None takes that of before, or `PLAINTEXT`.
        users: who may log in besides those of before; none of both are the usual ones.
        java_options: of a node.
        more: given a node and its settings, those to add or to change.

    Attributes:
        data: the folder, absolute.
        plan: nodes, ports, security and users.
        brokers: `HOST:PORT[,...]`.
        users: their files; of `PLAINTEXT` there are none.

    Raises:
        BranchyError: the folder is of another cluster, or a port is in use.
    """

    def __init__(
        self,
        home: KafkaHome,
        data: Path,
        *,
        nodes: int | None = None,
        port: int | None = None,
        security: str | None = None,
        users: Sequence[str] = (),
        java_options: tuple[str, ...] = JAVA_OPTIONS,
        more: MoreSettings | None = None,
    ) -> None:
        self.data = data.absolute()
        check_nothing_runs(self.data)
        self.plan: ClusterPlan = config.plan_cluster(self.data, nodes, port, security, users)
        self.brokers = self.plan.brokers
        self.users = KafkaUsers(self.data, self.plan.security, self.plan.users)
        self._home, self._java_options, self._more = home, java_options, more
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._guard: Guard | None = None

    def start(self, address_file: Path | None = None, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Format what is new, start all nodes, and wait until each is in the cluster's metadata.

        The nodes end with this process, however it ends, until `detach` is called.

        Args:
            address_file: where to write the address for others once they can use it; None tells nobody.
            timeout_s: how long the nodes may take.

        Raises:
            BranchyError: a broker runs there or another start is at work, or the nodes do not start; none is left then.
        """
        if address_file is not None and AddressFile(address_file).is_live():
            running = running_broker(address_file)
            where = f"at {running.brokers}" if running else "there"
            raise BranchyError(f"a broker is running already {where}; end it with 'branchy broker stop'")
        with self._folder_alone(), contextlib.ExitStack() as on_failure, contextlib.ExitStack() as held:
            reservation = held.enter_context(AddressFile(address_file).reserved()) if address_file else None
            self._write_settings()
            self._guard = Guard(self.data)
            on_failure.callback(self.stop)
            for node in self.plan.nodes:
                self.start_node(node.id, also_hold=() if reservation is None else (reservation.descriptor,))
            self.wait_ready(timeout_s)
            self.users.register(self._admin())
            if reservation is not None:
                first = self._processes[self.plan.nodes[0].id].pid
                record = BrokerRecord.now(self.brokers, first, "kafka", str(self.data), self.plan.security)
                reservation.publish(record)
            on_failure.pop_all()

    def start_node(self, number: int, *, also_hold: tuple[int, ...] = ()) -> None:
        """Start one node that does not run; returns before it is ready.

        Args:
            number: 1 or more.
            also_hold: locked files that the node keeps open, and so locked, besides its own.
        """
        node = self.plan.nodes[number - 1]
        folder = node_folder(self.data, node)
        options = (*self._java_options, "-Dlog4j2.configurationFile=log4j2.properties")
        command = self._home.command("kafka.Kafka", "server.properties", options=options)
        with self._node_file(number).reserved() as reservation, (folder / _CONSOLE).open("wb") as console:
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                pass_fds=(reservation.descriptor, *also_hold),
            )
            try:
                reservation.publish(BrokerRecord.now(f"{config.HOST}:{node.port}", process.pid, "node"))
                self._processes[number] = process
            except BaseException:  # a Ctrl-C, too: nobody else knows of this process
                process.kill()
                process.wait()
                raise

    def kill_node(self, number: int) -> None:
        """End one node at once (SIGKILL), as a crash would, and wait for that."""
        self._processes[number].kill()
        self._processes[number].wait()

    def stop_node(self, number: int) -> None:
        """Stop one node properly, and wait for that."""
        stop_processes([self._node_file(number)])
        self._processes[number].wait()

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until the metadata shows every node.

        Raises:
            BranchyError: a node ended, or time is up.
        """
        deadline_s = time.monotonic() + timeout_s
        admin = self._admin()
        expected, seen = {node.id for node in self.plan.nodes}, set[int]()
        while seen != expected:
            for node in self.plan.nodes:
                self._check_alive(node)
            if time.monotonic() > deadline_s:
                raise BranchyError(
                    f"Kafka is not ready after {timeout_s:g} s: nodes {sorted(expected - seen)} are missing; "
                    f"their logs are in {self.data}/node-*/kafka.log"
                )
            with contextlib.suppress(KafkaException):  # not yet
                seen = set(admin.list_topics(timeout=0.5).brokers)

    def detach(self) -> None:
        """Let the nodes go on when this process ends; `running.stop_broker` stops them."""
        if self._guard is not None:
            self._guard.release()

    def stop(self) -> None:
        """Stop all nodes that were started here and wait for that; may be called twice."""
        stop_processes([self._node_file(number) for number in self._processes])
        for process in self._processes.values():
            process.wait()
        if self._guard is not None:
            self._guard.close()

    def run(self, address_file: Path, on_ready: Callable[[], None]) -> None:
        """Start, and be there until SIGTERM, SIGINT, or the end of all nodes; then stop.

        Raises:
            BranchyError: see `start`.
        """
        ended = threading.Event()
        self.start(address_file)
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: ended.set())
            on_ready()
            while not ended.wait(0.2) and any(process.poll() is None for process in self._processes.values()):
                pass
        finally:
            stop_broker(address_file)
            self.stop()

    def __enter__(self) -> KafkaCluster:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @contextlib.contextmanager
    def _folder_alone(self) -> Iterator[None]:
        """Keep other starts out: each would write its own settings, and take the other's nodes for its own."""
        busy = f"{self.data}: another 'branchy broker start' is at work in this folder; name another with --data"
        with only_one(self.data / LOCK_FILE, busy):
            check_nothing_runs(self.data)
            known = config.read_plan(self.data)
            if known is not None and known.cluster_id != self.plan.cluster_id:
                raise BranchyError(f"{self.data}: another start has made a cluster here meanwhile; start again")
            yield

    def _node_file(self, number: int) -> AddressFile:
        return AddressFile(node_folder(self.data, self.plan.nodes[number - 1]) / NODE_FILE)

    def _admin(self) -> AdminClient:
        """As the nodes' own user, who may do everything."""
        quiet = {"log_level": 0, "reconnect.backoff.max.ms": 200}
        security = self.users.client_config(BROKER) if self.users.names else {}
        return AdminClient({"bootstrap.servers": self.brokers, **quiet, **security})

    def _write_settings(self) -> None:
        """Settings of all nodes, the users' files, and the first files of the data of new nodes."""
        try:
            self.users.make(config.CERTIFIED_HOSTS)  # first: it can fail, and the plan settles the folder's security
            config.write_plan(self.data, self.plan, self._more)
            self.users.write_settings(self.brokers)
            with self.users.bootstrap_arguments() as more:
                self._format(("format", "--cluster-id", self.plan.cluster_id, "--config", "server.properties", *more))
        except OSError as error:
            raise BranchyError(f"{self.data}: cannot be written: {error.strerror}") from None

    def _format(self, arguments: Sequence[str]) -> None:
        """Have Kafka's own tool write the first files of the data of new nodes."""
        runs = []
        for node in self.plan.nodes:
            folder = node_folder(self.data, node)
            if not _is_formatted(folder, self.plan):
                command = self._home.command("kafka.tools.StorageTool", *arguments, options=TOOL_OPTIONS)
                run = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                runs.append((node, run))
        for node, run in runs:
            said, _ = run.communicate()
            if run.returncode != 0:
                raise BranchyError(f"Kafka could not format the data of node {node.id}: {_reason(said)}")

    def _check_alive(self, node: NodePlan) -> None:
        code = self._processes[node.id].poll()
        if code is not None:
            log = node_folder(self.data, node) / "kafka.log"
            texts = [path.read_text(errors="replace") for path in (log.with_name(_CONSOLE), log) if path.exists()]
            raise BranchyError(
                f"Kafka's node {node.id} ended as it started (exit code {code}): {_reason(''.join(texts))}; see {log}"
            )


def _is_formatted(folder: Path, plan: ClusterPlan) -> bool:
    """Whether a node's data are there and are this cluster's.

    Raises:
        BranchyError: they are another's.
    """
    file = folder / config.DATA_FOLDER / "meta.properties"
    if not file.exists():
        return False
    found = re.search(r"^cluster\.id=(.*)$", file.read_text(errors="replace"), re.MULTILINE)
    if found is None or found[1] != plan.cluster_id:
        raise BranchyError(
            f"{folder}: expected the data of cluster {plan.cluster_id}, found those of "
            f"{found[1] if found else 'none'}: name another folder with --data"
        )
    return True


def _reason(said: str) -> str:
    """The line of a Java program's output that says why it ended: the last cause, else the last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("\tat ")]
    causes = [line for line in lines if re.match(r"(Caused by: )?([\w$]+\.)+[\w$]*(Exception|Error)\b", line)]
    return (causes or lines or ["it said nothing"])[-1].removeprefix("Caused by: ")[:300]
