"""A real Kafka with the settings, certificates and passwords of the `tls` overlay, and its clients' variables.

Its broker is started as in the cloud of docs/brokers-elsewhere.md: those brokers are `tls`' own with a listener more.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from deployment import ROOT
from documents import shell_blocks
from manifests import Manifest, containers, named, variables

from branchy.brokers.kafka_config import HOST, free_ports, port_is_free
from branchy.brokers.kafka_home import KafkaHome
from branchy.config import DeviceSettings, LinkSettings, ServeSettings, load
from branchy.core import topics
from branchy.errors import RefusedError, TransportError
from branchy.runner.topics import create_topics
from branchy.transport.kafka import KafkaLink

READY_S = 120.0
JAVA = ("-Xmx384m", "-XX:TieredStopAtLevel=1")


def _local(text: str, secrets: Path, data: Path) -> str:
    """Paths in a pod become those here."""
    for folder in ("/etc/branchy-tls", "/etc/branchy-users"):
        text = text.replace(folder, str(secrets))
    return text.replace("/var/lib/branchy-kafka/data", str(data))


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the one broker is to be reached."""

    clients: int
    controller: int
    outside: int

    def _here(self, text: str) -> str:
        """Names and ports of a pod become those here; what Kafka fills in stays to be filled in."""
        return (
            text.replace("kafka-${env:POD_INDEX}.kafka.${env:POD_NAMESPACE}.svc:9092", f"{HOST}:{self.clients}")
            .replace("kafka-${env:POD_INDEX}.cloud.example:9094", f"127.0.${{env:POD_INDEX}}.1:{self.outside}")
            .replace("://:9092", f"://{HOST}:{self.clients}")
            .replace("://:9093", f"://{HOST}:{self.controller}")
            .replace("://:9094", f"://{HOST}:{self.outside}")
        )

    def one_node(self, settings: str) -> str:
        """The settings of the first of three nodes, as those of one alone on the loopback."""
        text = re.sub(r"(?m)^(controller\.quorum\.voters)=.*$", rf"\1=0@{HOST}:{self.controller}", self._here(settings))
        return re.sub(r"(?m)^(.*(?:replication\.factor|insync\.replicas|min\.isr))=\d+$", r"\1=1", text)

    def words(self, command: list[str]) -> list[str]:
        """What `kafka-server-start.sh` is told after the file."""
        assert command[:2] == ["/opt/kafka/bin/kafka-server-start.sh", "/etc/branchy/server.properties"]
        return [self._here(word) for word in command[2:]]


@pytest.fixture(scope="module")
def manifests_of_tls(rendered) -> list[Manifest]:
    return rendered["overlays/tls"]


@pytest.fixture(scope="module")
def ports() -> Ports:
    return Ports(*free_ports(3))


@pytest.fixture(scope="module")
def brokers(
    rendered, k8s: Path, manifests_of_tls, ports: Ports, kafka_home, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Formatted and started by the commands of the manifests."""
    folder, secrets = tmp_path_factory.mktemp("tls"), k8s / "overlays" / "tls" / "secrets"
    properties = folder / "server.properties"
    text = named(manifests_of_tls, "ConfigMap", "kafka")["data"]["server.properties"]
    assert named(rendered["cloud-alone"], "ConfigMap", "kafka")["data"]["server.properties"] == text
    properties.write_text(ports.one_node(_local(text, secrets, folder / "data")))
    pod = named(rendered["cloud-alone"], "StatefulSet", "kafka")["spec"]["template"]["spec"]
    cluster_id = variables(containers(pod)[0], manifests_of_tls)["CLUSTER_ID"]
    program, *words = containers(pod)[0]["command"]
    assert program == "/opt/kafka/bin/kafka-storage.sh"
    words = [_local(word, secrets, folder).replace("$(CLUSTER_ID)", cluster_id) for word in words]
    words = [word.replace("/etc/branchy/server.properties", str(properties)) for word in words]
    environment = {**os.environ, "POD_INDEX": "0", "POD_NAMESPACE": "branchy"}
    formatted = subprocess.run(
        kafka_home.command("kafka.tools.StorageTool", *words, options=JAVA),
        env=environment,
        capture_output=True,
        text=True,
        timeout=READY_S,
    )
    assert formatted.returncode == 0, formatted.stdout + formatted.stderr
    words = ports.words(pod["containers"][0]["command"])
    command = kafka_home.command("kafka.Kafka", str(properties), *words, options=JAVA)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        until = time.monotonic() + READY_S
        while port_is_free(ports.clients) or port_is_free(ports.outside):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.1)
        yield f"{HOST}:{ports.clients}"
    finally:
        process.kill()
        process.wait(READY_S)


@pytest.fixture
def link_of(brokers: str, manifests_of_tls: list[Manifest], k8s: Path, monkeypatch, tmp_path):
    """By the name of a job or tier: the settings that its pod has, with the files of its secret."""

    def settings(kind: str, name: str, user: str, **changes: object) -> LinkSettings:
        secrets = k8s / "overlays" / "tls" / "secrets"
        files = {"client.pem": f"{user}.pem", "password": f"{user}.password"}
        container = named(manifests_of_tls, kind, name)["spec"]["template"]["spec"]["containers"][0]
        with monkeypatch.context() as environment:
            environment.chdir(tmp_path)
            for variable, value in variables(container, manifests_of_tls).items():
                environment.setenv(variable, value or "0")
            back = load(DeviceSettings, {"bundle": "b", "back": {"brokers": brokers}}).back
        paths = ("ca_file", "certificate_file", "key_file", "password_file")
        here = {path: secrets / files.get(getattr(back, path).name, getattr(back, path).name) for path in paths}
        return back.model_copy(update={**here, **changes})

    return settings


@pytest.fixture
def way_up(brokers: str, ports: Ports, rendered, k8s: Path, monkeypatch, tmp_path) -> LinkSettings:
    """The front of the edge in another cluster, by the documents' settings and the same certificate of its brokers."""
    secrets = k8s / "overlays" / "tls" / "secrets"
    edge = named(rendered["edge-alone"], "StatefulSet", "edge-tier")["spec"]["template"]["spec"]["containers"][0]
    monkeypatch.chdir(tmp_path)
    for variable, value in variables(edge, rendered["edge-alone"]).items():
        monkeypatch.setenv(variable, value or "0")
    front = load(ServeSettings, {"bundle": "b"}).front
    assert front is not None
    files = {
        "ca_file": "ca.pem",
        "certificate_file": "edge.pem",
        "key_file": "edge.pem",
        "password_file": "edge.password",
    }
    here = {name: secrets / file for name, file in files.items()}
    return front.model_copy(update={**here, "brokers": f"{HOST}:{ports.outside}"})


def seen(settings: LinkSettings, names: list[str]) -> set[str]:
    """The topics that a user may use, once its rights have reached the broker, which takes a moment."""
    until = time.monotonic() + READY_S
    while True:
        with closing(KafkaLink(settings, "back")) as link:
            try:
                return set(link.prepare(names, READY_S))
            except RefusedError:
                assert time.monotonic() < until
                time.sleep(0.1)


def test_the_operator_makes_topics_and_gives_rights_and_each_client_has_its_own(link_of, toy_bundle):
    operator = link_of("Job", "topics", "operator")
    settings = DeviceSettings(bundle=toy_bundle.path, back=operator, cascade="tls", connect_timeout_s=60.0)
    report = create_topics(settings, partitions=12, replication=1, grant=True)
    assert topics.requests("tls", "edge") in report.created
    assert {rule.user for rule in report.granted} >= {"edge", "device"}
    queue, dead = topics.requests("tls", "edge"), topics.dead_letters("tls", "edge")
    assert seen(link_of("StatefulSet", "edge-tier", "edge"), [queue, dead]) == {queue, dead}
    device = link_of("Job", "device", "device")
    assert seen(device, [queue]) == {queue}
    with closing(KafkaLink(device, "back")) as link, pytest.raises(RefusedError, match="dead"):
        link.prepare([dead], 5.0)


def test_the_edge_of_another_cluster_logs_in_from_outside_and_nobody_does_without_certificate_and_password(
    way_up, toy_bundle, tmp_path
):
    queue = topics.requests("tls", toy_bundle.spec.stages[1].name)
    assert seen(way_up, [queue]) == {queue}
    wrong = tmp_path / "password"
    wrong.write_text("guessed")
    for changes in ({"password_file": wrong}, {"certificate_file": None, "key_file": None}):
        with closing(KafkaLink(way_up.model_copy(update=changes), "front")) as link, pytest.raises(TransportError):
            link.prepare([queue], 3.0)


@pytest.fixture
def kubectl(brokers: str, manifests_of_tls: list[Manifest], k8s: Path, kafka_home: KafkaHome, tmp_path: Path) -> Path:
    """A kubectl that runs what is to be executed in a broker's pod here; and a branchy that does nothing.

    Returns:
        The folder with both.
    """
    text = named(manifests_of_tls, "ConfigMap", "kafka")["data"]["client.properties"]
    client = tmp_path / "client.properties"
    client.write_text(_local(text, k8s / "overlays" / "tls" / "secrets", tmp_path))
    program = shlex.join(kafka_home.command("kafka.admin.ConfigCommand", options=("-Xmx64m", JAVA[1])))
    lines = [
        "#!/bin/sh",
        'test "$*" != "${*#-n branchy exec -i kafka-0 -c kafka -- env KAFKA_HEAP_OPTS=-Xmx64m *}" || exit 9',
        'while [ "$1" != /opt/kafka/bin/kafka-configs.sh ]; do shift; done; shift',
        'test "$1 $2" = "--bootstrap-server kafka-0.kafka.branchy.svc:9092"; shift 2',
        'test "$1 $2" = "--command-config /etc/branchy/client.properties"; shift 2',
        f'exec {program} --bootstrap-server {brokers} --command-config {client} "$@"',
    ]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "kubectl").write_text("\n".join([lines[0], "set -e", *lines[1:]]))
    (tmp_path / "bin" / "branchy").write_text("#!/bin/sh\n")
    for each in (tmp_path / "bin").iterdir():
        each.chmod(0o755)
    return tmp_path / "bin"


def test_the_documents_way_to_a_new_password_is_one_that_the_brokers_take(link_of, kubectl, k8s, tmp_path):
    tls = tmp_path / "deploy" / "k8s" / "overlays" / "tls"
    shutil.copytree(k8s / "overlays" / "tls", tls)
    (commands,) = [block for block in shell_blocks(ROOT / "docs" / "security.md") if "kafka-configs" in block]
    environment = {**os.environ, "PATH": f"{kubectl}{os.pathsep}{os.environ['PATH']}"}
    line = ["sh", "-euc", commands]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=READY_S)
    assert done.returncode == 0, done.stdout + done.stderr
    password = (tls / "secrets" / "edge.password").read_text()
    assert password not in done.stdout + done.stderr
    assert f"name=edge,password={password}]" in (tls / "secrets" / "format.arguments").read_text()
    queue = topics.requests("tls", "edge")
    renewed = {"password_file": tls / "secrets" / "edge.password"}
    assert seen(link_of("StatefulSet", "edge-tier", "edge", **renewed), [queue]) == {queue}
    with closing(KafkaLink(link_of("StatefulSet", "edge-tier", "edge"), "back")) as link, pytest.raises(RefusedError):
        link.prepare([queue], 5.0)


def test_a_password_alone_or_a_certificate_alone_is_not_enough(link_of, tmp_path):
    wrong = tmp_path / "password"
    wrong.write_text("guessed")
    for changes in ({"password_file": wrong}, {"certificate_file": None, "key_file": None}):
        settings = link_of("Job", "device", "device", **changes)
        with closing(KafkaLink(settings, "back")) as link, pytest.raises(TransportError):
            link.prepare([topics.requests("tls", "edge")], 3.0)
