"""Fixtures that several directories share."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deployed import Deployed
from fake_kubernetes import FakeKubernetes, use_kubeconfig
from manifests import kustomize_program
from toy_bundle import write_toy_bundle

from branchy.brokers.apache_kafka import KafkaCluster
from branchy.brokers.embedded import EmbeddedBroker, start_embedded
from branchy.brokers.kafka_home import KafkaHome, find_kafka
from branchy.errors import BranchyError
from branchy.store.bundle import Bundle

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with a slow test come first: begun last, one would keep a worker at it while the other has none left."""
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[EmbeddedBroker]:
    """One embedded broker for the session; tests keep apart by the names of their topics."""
    with start_embedded() as broker:
        yield broker


QUICK_JAVA = ("-Xmx384m", "-XX:TieredStopAtLevel=1")
"""Options of Java for a Kafka that starts on two thirds of the work, and is slower at its best."""


@pytest.fixture(scope="session")
def kafka_home() -> KafkaHome:
    """Apache Kafka's program files. Without them: a failure on CI, elsewhere a skip that says why."""
    try:
        return find_kafka(os.environ, print)
    except BranchyError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def apache_kafka(kafka_home: KafkaHome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """One real Kafka of one node for the session; tests keep apart by the names of their topics."""
    with KafkaCluster(kafka_home, tmp_path_factory.mktemp("kafka"), java_options=QUICK_JAVA) as cluster:
        yield cluster


SECURED_USERS = ("device", "camera", "edge", "hall")
"""Of the secured Kafka, besides the operator: two kinds of device, and a user for each tier of the toy bundle."""


@pytest.fixture(scope="session")
def openssl() -> None:
    """The program that makes certificates. Without it: as without Kafka."""
    if shutil.which("openssl") is None:
        if os.environ.get("CI"):
            pytest.fail("the program openssl is not here", pytrace=False)
        pytest.skip("the program openssl is not here")


@pytest.fixture(scope="session")
def secured_kafka(
    kafka_home: KafkaHome, openssl: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KafkaCluster]:
    """One real Kafka with TLS, logins and rights for the session; tests keep apart by the names of their cascades."""
    data = tmp_path_factory.mktemp("secured")
    options = {"security": "SASL_SSL", "users": SECURED_USERS, "java_options": QUICK_JAVA}
    with KafkaCluster(kafka_home, data, **options) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def kustomize(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The program that renders the manifests; `kustomize` on the path is this one too. Without it: as without Kafka."""
    try:
        named = kustomize_program(os.environ, tmp_path_factory.mktemp("kustomize"), print)
    except BranchyError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(named.parent), prepend=os.pathsep)
        yield named


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of tests/support/toy_bundle.py; read it, don't change it."""
    return write_toy_bundle(tmp_path_factory.mktemp("toy") / "toy")


@pytest.fixture(scope="session")
def digits_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle trained once a session on the digits, by a few epochs; read it, don't change it."""
    from branchy.runner.training import TrainOptions, train

    out = tmp_path_factory.mktemp("trained") / "digits"
    options = TrainOptions("digits", out=out, epochs=4, target_share=(60, 25, 15), uplink_dtype="uint8")
    return train(options).bundle


@pytest.fixture(scope="session")
def local_objects(kustomize: Path) -> list[dict[str, Any]]:
    """What `branchy deploy` makes of the overlay `local`; copy it before you change it."""
    from branchy.runner.deployment import DeployOptions, rendered

    return rendered(DeployOptions())


@pytest.fixture
def kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKubernetes]:
    """A fake API server, to which the kubeconfig leads."""
    fake = FakeKubernetes(tmp_path)
    use_kubeconfig(monkeypatch, fake.kubeconfig)
    yield fake
    fake.close()


@pytest.fixture
def deployed(kubernetes: FakeKubernetes, local_objects: list[dict[str, Any]]) -> Deployed:
    """The overlay `local`, and the fake API server to deploy it on."""
    return Deployed(kubernetes, local_objects)
