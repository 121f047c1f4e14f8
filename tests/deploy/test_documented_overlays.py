"""The overlays that documents write out: for two clusters, for a managed Kafka, for an edge of one node."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import yaml
from deployment import ROOT
from documents import OVERLAYS, shell_blocks
from manifests import Manifest, named, pods

from branchy.runner.deployment import DeployOptions
from branchy.runner.deployment import rendered as deployable
from branchy.store.bundle import Bundle

BUNDLE = ROOT / "saved_models" / "fashion-mnist-b-lenet"


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    """By name, without kustomize's hashes where there are any."""
    return {m["metadata"]["name"]: m for m in manifests if m["kind"] == kind}


def sets(manifests: list[Manifest]) -> set[str]:
    """The names of the StatefulSets."""
    return set(of_kind(manifests, "StatefulSet"))


def settings_of(manifests: list[Manifest], tier: str) -> dict[str, str]:
    """A tier's variables that its ConfigMap holds."""
    return dict(named(manifests, "ConfigMap", f"{tier}-settings")["data"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_branchy_deploy_finds_nothing_wrong_with_it_and_the_bundle(documented, overlay):
    options = DeployOptions(str(documented / overlay), bundle=BUNDLE, limit_bytes=8_388_608)
    assert sets(deployable(options))


def test_the_clouds_cluster_has_no_edge_and_the_edges_none_but_one(rendered):
    assert sets(rendered["cloud-alone"]) == {"kafka", "fog-tier", "cloud-tier"}
    assert set(of_kind(rendered["cloud-alone"], "Job")) == {"topics"}
    assert sets(rendered["edge-alone"]) == {"kafka", "edge-tier"}
    assert set(of_kind(rendered["edge-alone"], "Job")) == {"topics", "device"}
    assert all("nodeSelector" not in pod for _, pod in pods(rendered["edge-alone"]))


def test_each_of_the_clouds_brokers_has_a_service_for_the_outside_and_is_advertised_as_the_edge_calls_it(rendered):
    cloud = rendered["cloud-alone"]
    kafka = of_kind(cloud, "StatefulSet")["kafka"]
    outside = [s["spec"] for s in of_kind(cloud, "Service").values() if s["spec"].get("type") == "LoadBalancer"]
    pods_of_kafka = [f"kafka-{number}" for number in range(kafka["spec"]["replicas"])]
    assert [service["selector"] for service in outside] == [
        {"statefulset.kubernetes.io/pod-name": pod} for pod in pods_of_kafka
    ]
    (container,) = kafka["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {(s["ports"][0]["port"], s["ports"][0]["targetPort"]) for s in outside} == {(ports["outside"], "outside")}
    assert {s["externalTrafficPolicy"] for s in outside} == {"Local"}, "else the policy sees another address"
    (advertised,) = [word for word in container["command"] if word.startswith("advertised.listeners=")]
    name = advertised.partition("OUTSIDE://")[2]
    names = [name.replace("${env:POD_INDEX}", str(number)) for number in range(3)]
    assert settings_of(rendered["edge-alone"], "edge")["BRANCHY_FRONT_BROKERS"] == ",".join(names)


def test_the_ways_up_and_to_a_managed_kafka_are_open_by_address_and_for_their_port_alone(rendered):
    (into,) = of_kind(rendered["cloud-alone"], "NetworkPolicy")["way-up"]["spec"]["ingress"]
    assert (list(into["from"][0]), into["ports"]) == (["ipBlock"], [{"port": "outside"}])
    (out,) = of_kind(rendered["edge-alone"], "NetworkPolicy")["way-up"]["spec"]["egress"]
    assert (list(out["to"][0]), out["ports"]) == (["ipBlock"], [{"port": 9094}])
    managed, _ = of_kind(rendered["managed"], "NetworkPolicy")["kafka-clients"]["spec"]["egress"]
    (broker, *_) = settings_of(rendered["managed"], "edge")["BRANCHY_BACK_BROKERS"].split(",")
    assert managed["ports"] == [{"port": int(broker.rpartition(":")[2])}]


def test_an_edge_of_one_node_has_its_brokers_side_by_side_and_the_cloud_has_its_apart(rendered):
    apart = {
        manifest["metadata"]["namespace"]: "affinity" in pod
        for manifest, pod in pods(rendered["one-node-edge"])
        if manifest["metadata"]["name"] == "kafka"
    }
    assert apart == {"branchy-edge": False, "branchy-cloud": True}


# --- a bundle on a volume --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loader() -> list[Manifest]:
    """The claim, and the pod that fills it."""
    return list(yaml.safe_load_all((ROOT / "deploy/k8s/components/bundle-volume/load.yaml").read_text()))


def test_the_loader_fills_the_claim_that_the_tiers_read_as_their_own_user(loader, rendered):
    claim, pod = loader
    assert pod["spec"]["volumes"] == [{"name": "bundle", "persistentVolumeClaim": {"claimName": "bundle"}}]
    assert claim["metadata"]["name"] == "bundle"
    edge = of_kind(rendered["with-volume"], "StatefulSet")["edge-tier"]["spec"]["template"]["spec"]
    assert pod["spec"]["securityContext"] == edge["securityContext"]
    (container,) = pod["spec"]["containers"]
    (tier,) = edge["containers"]
    assert container["image"] == tier["image"]
    assert container["securityContext"] == tier["securityContext"], "the namespace takes nothing less restricted"


def test_the_documents_commands_bring_a_bundle_onto_the_volume_whole(tmp_path):
    (commands,) = [block for block in shell_blocks(ROOT / "deploy/k8s/README.md") if "bundle-loader" in block]
    commands = commands.replace("bundle=saved_models/digits", f"bundle={BUNDLE}")
    volume, programs = tmp_path / "volume", tmp_path / "bin"
    volume.mkdir()
    programs.mkdir()
    fake = programs / "kubectl"
    fake.write_text(
        '#!/bin/sh\ncase "$*" in "-n branchy exec -i bundle-loader -- python3 -c "*) ;; *) exit 0 ;; esac\n'
        f'exec {sys.executable} -c "$(printf "%s" "$9" | sed "s#/bundle#{volume}#")"\n'
    )
    fake.chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    line = ["sh", "-euc", commands]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Bundle.load(volume).digest == Bundle.load(BUNDLE).digest
    assert all(file.stat().st_mode & 0o400 for file in volume.iterdir())
