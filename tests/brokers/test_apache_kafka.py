"""The real Kafka: started, looked at, killed and stopped; also through `branchy broker`."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType
from secured import settings_of

from branchy.brokers import kafka_config
from branchy.brokers.address_file import AddressFile
from branchy.brokers.apache_kafka import KafkaCluster
from branchy.brokers.kafka_home import KafkaHome
from branchy.brokers.kafka_users import OPERATOR
from branchy.brokers.running import dead_nodes, running_broker, stop_broker
from branchy.core.access import Rule
from branchy.errors import BranchyError
from branchy.transport.kafka import KafkaLink

pytestmark = pytest.mark.alone

WAIT_S = 30.0


Client = Mapping[str, Any]
"""Librdkafka's settings by which somebody reaches a cluster."""

KEPT = "branchy.kept.edge.requests"


def client(cluster: KafkaCluster, user: str = OPERATOR) -> Client:
    return {"bootstrap.servers": cluster.brokers, **cluster.users.client_config(user)}


def create(who: Client, topic: str) -> None:
    admin = AdminClient(who)
    admin.create_topics([NewTopic(topic, 1)])[topic].result(WAIT_S)


def produce(who: Client, topic: str, body: bytes) -> KafkaError | None:
    """Send one message that all replicas in sync must have; returns why it failed."""
    fate: list[KafkaError | None] = []
    config = {**who, "acks": "all", "log_level": 0, "topic.metadata.propagation.max.ms": 1_000}
    producer = Producer(config)
    producer.produce(topic, body, partition=0, on_delivery=lambda error, _: fate.append(error))
    producer.flush(WAIT_S)
    assert fate, "neither acknowledged nor failed"
    return fate[0]


def bodies(who: Client, topic: str, count: int) -> list[bytes]:
    consumer = Consumer({**who, "group.id": "branchy.reader", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        return [message.value() for message in consumer.consume(count, WAIT_S)]
    finally:
        consumer.close()


def setting(who: Client, topic: str, name: str) -> str:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    admin = AdminClient(who)
    return admin.describe_configs([resource])[resource].result(WAIT_S)[name].value


def javas(folder: Path) -> list[int]:
    """The processes that run in a folder or below it."""
    found = []
    for process in psutil.process_iter(["cwd", "status"]):
        cwd = process.info["cwd"]
        if cwd and Path(cwd).is_relative_to(folder) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


@pytest.fixture(scope="module")
def three_nodes(
    kafka_home: KafkaHome, openssl: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[KafkaCluster, Path]]:
    """A cluster of three nodes, with TLS and logins between them too, and its address file."""
    folder = tmp_path_factory.mktemp("three")
    options = {"security": "SASL_SSL", "java_options": ("-Xmx256m", "-XX:TieredStopAtLevel=1")}
    cluster = KafkaCluster(kafka_home, folder / "data", nodes=3, **options)
    cluster.start(folder / "broker.json")
    yield cluster, folder / "broker.json"
    cluster.stop()


def test_a_topic_is_not_made_by_being_asked_for(apache_kafka):
    who = client(apache_kafka)
    assert produce(who, "wrong-address", b"x").code() == KafkaError.UNKNOWN_TOPIC_OR_PART
    assert "wrong-address" not in AdminClient(who).list_topics(timeout=WAIT_S).topics


def test_a_folder_where_a_kafka_runs_is_refused(apache_kafka, kafka_home):
    with pytest.raises(BranchyError, match=r"a Kafka runs in this folder already \(node-1\)"):
        KafkaCluster(kafka_home, apache_kafka.data)


def test_data_of_another_cluster_are_refused_and_nothing_is_started(tmp_path):
    home = KafkaHome(tmp_path / "libs", "no-java", "4")
    cluster = KafkaCluster(home, tmp_path / "data")
    data = kafka_config.node_folder(cluster.data, cluster.plan.nodes[0]) / kafka_config.DATA_FOLDER
    kafka_config.write_plan(cluster.data, cluster.plan)
    data.mkdir()
    (data / "meta.properties").write_text("version=1\ncluster.id=AnothersAnothersAnothe\nnode.id=1\n")
    with pytest.raises(BranchyError, match="found those of AnothersAnothersAnothe: name another folder with --data"):
        cluster.start()


def test_where_certificates_cannot_be_made_the_folder_is_free_for_a_start_without_tls(tmp_path, monkeypatch):
    home = KafkaHome(tmp_path / "libs", "no-java", "4")
    data = tmp_path / "new" / "data"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BranchyError, match=r"'openssl', which is not here.* or start the broker without --tls"):
        KafkaCluster(home, data, nodes=3, security="SASL_SSL").start()
    anew = KafkaCluster(home, data)
    assert (anew.plan.security, len(anew.plan.nodes), anew.users.names) == ("PLAINTEXT", 1, ())


def test_a_node_that_ends_as_it_starts_is_told_with_kafkas_reason_and_nothing_is_left(kafka_home, tmp_path):
    cluster = KafkaCluster(kafka_home, tmp_path / "data", java_options=("-XX:TieredStopAtLevel=1",))
    data = kafka_config.node_folder(cluster.data, cluster.plan.nodes[0]) / kafka_config.DATA_FOLDER
    kafka_config.write_plan(cluster.data, cluster.plan)
    data.mkdir()
    (data / "meta.properties").write_text(f"version=1\ncluster.id={cluster.plan.cluster_id}\nnode.id=77\n")
    with pytest.raises(BranchyError, match=r"node 1 ended as it started .*77.*kafka\.log") as error:
        cluster.start(tmp_path / "broker.json")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "broker.json").exists()
    assert javas(tmp_path) == []


def test_three_nodes_keep_three_copies_and_go_on_without_one(three_nodes):
    """As users with rights: the operator makes the topic, a device writes to it."""
    cluster, address_file = three_nodes
    operator, device = client(cluster), client(cluster, "device")
    create(operator, KEPT)
    assert setting(operator, KEPT, "min.insync.replicas") == "2"
    assert produce(device, KEPT, b"no right yet").code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    with closing(KafkaLink(settings_of(cluster.users, OPERATOR), "back")) as link:
        link.allow([Rule("device", ("WRITE", "DESCRIBE"), "topic", KEPT)], WAIT_S)
    (partition,) = AdminClient(operator).list_topics(KEPT).topics[KEPT].partitions.values()
    assert sorted(partition.replicas) == [1, 2, 3]
    assert produce(device, KEPT, b"before") is None

    cluster.kill_node(partition.leader)
    record = running_broker(address_file)
    assert [folder.name for folder in dead_nodes(record)] == [f"node-{partition.leader}"]
    assert produce(device, KEPT, b"without the leader") is None

    cluster.start_node(partition.leader)
    cluster.wait_ready()
    assert dead_nodes(record) == []
    assert bodies(operator, KEPT, 2) == [b"before", b"without the leader"]


def test_stopping_three_nodes_by_their_address_file_leaves_none_and_each_has_closed_its_logs(three_nodes, caplog):
    """A node that was killed instead would look through all of its logs at the next start."""
    cluster, address_file = three_nodes
    assert len(javas(cluster.data)) == 3
    assert stop_broker(address_file).brokers == cluster.brokers
    assert javas(cluster.data) == []
    assert not address_file.exists()
    closed = sorted(path.parent.parent.name for path in cluster.data.glob("node-*/data/.kafka_cleanshutdown"))
    assert closed == ["node-1", "node-2", "node-3"]
    assert not caplog.records


def branchy(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "branchy", "broker", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_starts_tells_and_stops_and_messages_outlive_a_stop(kafka_home, tmp_path):
    (port,) = kafka_config.free_ports(1)
    brokers, file = f"127.0.0.1:{port}", tmp_path / ".branchy" / "broker.json"
    try:
        started = branchy(tmp_path, "start", "--port", port, "--data", "kept")
        assert (started.returncode, started.stdout) == (0, f"broker at {brokers}; 'branchy broker stop' ends it\n")
        assert branchy(tmp_path, "status").stdout.startswith(f"kafka broker at {brokers} (process ")
        again = branchy(tmp_path, "start", "--data", "other")
        assert (again.returncode, again.stderr.splitlines()[-1]) == (
            1,
            f"branchy: a broker is running already at {brokers}; end it with 'branchy broker stop'",
        )
        who = {"bootstrap.servers": brokers}
        create(who, "kept")
        assert produce(who, "kept", b"kept") is None
        assert branchy(tmp_path, "stop").stdout == f"broker at {brokers} stopped\n"
        assert javas(tmp_path) == []

        command = [sys.executable, "-m", "branchy", "broker", "start", "--data", "kept", "--foreground"]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as foreground:
            assert foreground.stdout.readline() == f"broker at {brokers}; Ctrl-C ends it\n"
            assert bodies(who, "kept", 1) == [b"kept"]
            foreground.send_signal(signal.SIGINT)
            assert foreground.wait(60) == 0
        assert javas(tmp_path) == []
        assert not AddressFile(file).is_live()
        assert branchy(tmp_path, "status").returncode == 1
    finally:
        stop_broker(file)


def test_a_start_that_is_ended_half_way_leaves_no_process_and_no_address(kafka_home, tmp_path):
    command = [sys.executable, "-m", "branchy", "broker", "start", "--data", "half"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as starting:
        watched = tmp_path / "half" / "node-1" / "node.json"
        until = time.monotonic() + WAIT_S
        while not watched.exists():
            assert starting.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        starting.terminate()
        assert starting.wait(WAIT_S) == 128 + signal.SIGTERM
        assert "Traceback" not in starting.stderr.read()
    assert javas(tmp_path) == []
    assert list((tmp_path / ".branchy").iterdir()) == []
