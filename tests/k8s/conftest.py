"""A cluster, which `KUBECONFIG` and `K8S_TEST_CONTEXT` name, made ready for every overlay and left as it was found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import manifests
import pytest
import yaml
from deploy_ways import Deploy, Kubectl, Scripts, ServerSide, Way
from go_programs import KEDA, fetch_module
from live_cluster import NAMESPACES, Cluster, NoClusterError, find_cluster, until

WAYS: tuple[type[Way], ...] = (Kubectl, ServerSide, Scripts, Deploy)
EDGE = "branchy.io/site"
TABLE = pytest.StashKey[list[tuple[str, ...]]]()
CLAIM = """apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: bundle, namespace: branchy}
spec: {accessModes: [ReadOnlyMany], resources: {requests: {storage: 1Gi}}}
"""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster with nodes for the edge, and KEDA's kinds."""
    try:
        found = find_cluster(os.environ)
    except NoClusterError as error:
        pytest.fail(str(error), pytrace=False)
    nodes = found.listed("nodes")
    missing = max(0, 3 - sum(EDGE in node["metadata"]["labels"] for node in nodes))
    names = [node["metadata"]["name"] for node in nodes if EDGE not in node["metadata"]["labels"]][:missing]
    with_keda = knows_scaled_objects(found)
    try:
        for name in names:
            found.run("label", "node", name, f"{EDGE}=edge")
        if not with_keda:
            kinds = fetch_module(KEDA, os.environ) / "config/crd"
            found.run("apply", "-k", str(kinds), "--server-side", "--validate=strict")
            until(lambda: knows_scaled_objects(found), "the server knows KEDA's kinds")
        yield found
    finally:
        for name in names:
            found.run("label", "node", name, f"{EDGE}-")
        if not with_keda:
            found.run("delete", "-k", str(kinds), "--ignore-not-found")


def knows_scaled_objects(cluster: Cluster) -> bool:
    """Whether they can be applied yet."""
    words = ("api-resources", "--api-group=keda.sh", "--cached=false", "-o", "name")
    return "scaledobjects.keda.sh" in cluster.run(*words).split()


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """deploy/k8s with secrets, and with the overlay whose bundle is on a volume among the others."""
    k8s = manifests.copy_with_secrets(tmp_path_factory.mktemp("k8s"))
    own = k8s / manifests.OF_VOLUME / "kustomization.yaml"
    asked = yaml.safe_load(own.read_text())
    asked["resources"] = [*(each.replace("../overlays/", "../") for each in asked["resources"]), "claim.yaml"]
    asked["components"] = [f"../{each}" for each in asked["components"]]
    own.write_text(yaml.safe_dump(asked))
    (own.parent / "claim.yaml").write_text(CLAIM)
    own.parent.rename(k8s / "overlays" / manifests.OF_VOLUME)
    return k8s


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(request: pytest.FixtureRequest, cluster: Cluster, copy: Path) -> Iterator[Way]:
    """Each way to deploy; afterwards none of the namespaces is there."""
    yield request.param(cluster, copy)
    cluster.run("delete", "namespace", *NAMESPACES, "--ignore-not-found", "--wait")


@pytest.fixture
def table(request: pytest.FixtureRequest) -> list[tuple[str, ...]]:
    """Rows to show at the end."""
    return request.config.stash.setdefault(TABLE, [])


HEAD = ("way", "overlay", "objects", "pods", "apply s", "runs s", "again s", "change s", "delete s", "least there")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(TABLE, [])
    if rows:
        widths = [max(len(row[column]) for row in (HEAD, *rows)) for column in range(len(HEAD))]
        for row in (HEAD, *rows):
            terminalreporter.write_line("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)))
