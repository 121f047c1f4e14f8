"""The Kubernetes manifests, rendered by kustomize and held against schemas, settings and flags."""

from __future__ import annotations

import itertools
import json
import os
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import deployment
import jsonschema
import kubernetes_validate
import pytest
import yaml
from deployment import DOCKERFILES, pairs, stages
from documents import OVERLAYS as DOCUMENTED
from go_programs import KEDA as KEDA_MODULE
from go_programs import fetch_module
from kubernetes_validate import utils as schemas
from manifests import BUNDLE_DIGEST, KUSTOMIZATIONS, OF_VOLUME, OVERLAYS, Manifest, containers, named, pods, variables

from branchy.brokers.kafka_home import KAFKA_VERSION
from branchy.config import DeviceSettings, ServeSettings, load
from branchy.core.wire import MAX_BUDGET_MS
from branchy.errors import BranchyError
from branchy.runner.tier import DRAIN_S
from branchy.transport.kafka.topics import PARTITIONS

NEWEST = list(dict.fromkeys(schemas.major_minor(version) for version in schemas.all_versions()))[-3:]
KEDA = "keda.sh/v1alpha1"
KAFKA_NAMES = [f"kafka-{n}.kafka" for n in range(3)]
every = pytest.mark.parametrize("path", KUSTOMIZATIONS)
every_documented_too = pytest.mark.parametrize("path", [*KUSTOMIZATIONS, *DOCUMENTED])


def own(pod: Manifest) -> list[Manifest]:
    """A pod's containers of branchy's images."""
    return [c for c in containers(pod) if c["image"].startswith("branchy-")]


def image_of(container: Manifest) -> list[deployment.Instruction]:
    """The Dockerfile's stage that a container's image is."""
    name = container["image"].partition(":")[0].removeprefix("branchy-")
    return stages(DOCKERFILES / f"{name}.Dockerfile")[-1]


def tiers(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The tiers' StatefulSets by the tier's name."""
    sets = [m for m in manifests if m["kind"] == "StatefulSet" and m["metadata"]["name"].endswith("-tier")]
    return {m["metadata"]["name"].removesuffix("-tier"): m for m in sets}


def test_every_overlay_is_looked_at(k8s: Path, rendered):
    assert {folder.name for folder in (k8s / "overlays").iterdir()} == set(OVERLAYS)
    assert set(rendered) == {*KUSTOMIZATIONS, *DOCUMENTED}


@pytest.mark.parametrize("version", NEWEST)
def test_each_object_is_what_kubernetes_takes_and_has_no_unknown_field(rendered, k8s, version, monkeypatch):
    monkeypatch.setattr(schemas, "schema_contents", cache(schemas.schema_contents))  # else read anew for each object
    of_volume = yaml.safe_load_all((k8s / "components" / "bundle-volume" / "load.yaml").read_text())
    manifests = itertools.chain(of_volume, *rendered.values())
    distinct = {json.dumps(manifest, sort_keys=True): manifest for manifest in manifests}
    for manifest in distinct.values():
        try:
            assert kubernetes_validate.validate(manifest, version, strict=True) == version
        except schemas.SchemaNotFoundError:
            assert manifest["apiVersion"] == KEDA, f"no schema of {manifest['kind']}"


@pytest.mark.parametrize("path", [path for path in KUSTOMIZATIONS if path != OF_VOLUME])  # whose digest is the user's
def test_each_object_says_what_it_is_part_of(rendered, path):
    parts = {m["metadata"]["name"]: m["metadata"].get("labels", {}) for m in rendered[path]}
    assert [name for name, labels in parts.items() if labels.get("app.kubernetes.io/part-of") != "branchy"] == []


@every_documented_too
def test_each_command_line_and_variable_is_one_of_branchys(rendered, path):
    known = deployment.known_variables()
    checked = 0
    for _, pod in pods(rendered[path]):
        assert pod["enableServiceLinks"] is False, "a Service's variables could look like settings"
        for container in own(pod):
            names = {name for name in variables(container, rendered[path]) if name.startswith("BRANCHY_")}
            assert names <= known
            entry = {i.keyword: i.words for i in image_of(container) if i.keyword == "ENTRYPOINT"}["ENTRYPOINT"]
            line = [*container.get("command", entry), *container.get("args", [])]
            if line[0] == "branchy":
                assert deployment.complaint(line[1:]) is None
                checked += 1
    assert checked > len(tiers(rendered[path])) > 0


@every
def test_each_tier_has_the_settings_that_it_needs_and_a_probe_finds_its_port(rendered, path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = tiers(rendered[path])
    assert set(found) == {"edge", "fog", "cloud"}
    for name, manifest in found.items():
        (container,) = manifest["spec"]["template"]["spec"]["containers"]
        values = {**pairs(image_of(container), "ENV"), **variables(container, _of_namespace(rendered[path], manifest))}
        with monkeypatch.context() as environment:
            for variable, value in values.items():
                if variable.startswith("BRANCHY_"):
                    environment.setenv(variable, value or "0")  # only the replica's has none: its pod's ordinal
            settings = load(ServeSettings, {})
        assert settings.tier == (name,)
        (port,) = container["ports"]
        assert port == {"name": "health", "containerPort": settings.health.port}
        for probe, where in (
            ("startupProbe", "/healthz"),
            ("livenessProbe", "/healthz"),
            ("readinessProbe", "/readyz"),
        ):
            assert container[probe]["httpGet"] == {"path": where, "port": "health"}
        namespace = manifest["metadata"]["namespace"]
        assert [a.partition(":")[0] for a in settings.back.brokers.split(",")] == KAFKA_NAMES
        named(_of_namespace(rendered[path], manifest), "StatefulSet", "kafka")  # of those names, in this namespace
        if path.endswith("edge-cloud") and name == "edge":
            assert namespace == "branchy-edge"
            fronts = [f"{host}.branchy-cloud.svc:9092" for host in KAFKA_NAMES]
            assert settings.front is not None
            assert settings.front.brokers == ",".join(fronts)
        else:
            assert settings.front is None, "the front is the back's"


def _of_namespace(manifests: list[Manifest], like: Manifest) -> list[Manifest]:
    return [m for m in manifests if m["metadata"].get("namespace") == like["metadata"]["namespace"]]


@every_documented_too
def test_a_pods_ordinal_picks_the_partition_of_its_answers_and_there_is_time_to_settle(rendered, path):
    for manifest in tiers(rendered[path]).values():
        pod = manifest["spec"]["template"]["spec"]
        (replica,) = [v for v in pod["containers"][0]["env"] if v["name"] == "BRANCHY_REPLICA"]
        assert replica["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['apps.kubernetes.io/pod-index']"
        assert pod["terminationGracePeriodSeconds"] > MAX_BUDGET_MS / 1e3 + DRAIN_S
        assert manifest["spec"].get("replicas", 1) <= PARTITIONS


@every_documented_too
def test_every_container_is_held_to_the_restricted_standard(rendered, path):
    for _, pod in pods(rendered[path]):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in containers(pod):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
    for manifest in rendered[path]:
        if manifest["kind"] == "Namespace":
            assert manifest["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@every_documented_too
def test_the_user_and_the_version_are_those_of_the_images(rendered, path):
    for _, pod in pods(rendered[path]):
        for container in own(pod):
            user = {i.keyword: i.value for i in image_of(container)}["USER"]
            security = pod["securityContext"]
            assert user == f"{security['runAsUser']}:{security['runAsGroup']}"
            assert container["image"].partition(":")[2] == pairs(image_of(container), "ARG")["VERSION"]
        for container in containers(pod):
            if container not in own(pod):
                assert container["image"] == f"apache/kafka:{KAFKA_VERSION}"


@every_documented_too
def test_what_is_mounted_is_there(rendered, path):
    for manifest, pod in pods(rendered[path]):
        claims = [each["metadata"]["name"] for each in manifest["spec"].get("volumeClaimTemplates", [])]
        volumes = {volume["name"] for volume in pod.get("volumes", [])} | set(claims)
        for container in containers(pod):
            mounted = [mount["name"] for mount in container.get("volumeMounts", [])]
            assert set(mounted) <= volumes
            assert len(set(mounted)) == len(mounted)
        here = _of_namespace(rendered[path], manifest)
        for volume in pod.get("volumes", []):
            if "configMap" in volume:
                named(here, "ConfigMap", volume["configMap"]["name"])
            if "secret" in volume:
                named(here, "Secret", volume["secret"]["secretName"])


def test_a_bundle_on_a_volume_is_verified_before_a_tier_starts_and_used_by_all(rendered):
    for manifest, pod in pods(rendered[OF_VOLUME]):
        if manifest["metadata"]["name"] == "kafka":
            continue
        claims = {v["name"]: v["persistentVolumeClaim"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
        assert claims == {"bundle": {"claimName": "bundle", "readOnly": True}}
        users = [
            c
            for c in containers(pod)
            if {"name": "bundle", "mountPath": "/bundle", "readOnly": True} in c["volumeMounts"]
        ]
        assert users
        if manifest["kind"] == "StatefulSet":
            assert users == containers(pod)
            (verifies,) = pod["initContainers"]
            assert verifies["command"] == ["branchy", "inspect", "/bundle", "--digest=$(BUNDLE_DIGEST)"]
            (digest,) = verifies["env"]
            reference = digest["valueFrom"]["configMapKeyRef"]
            assert (digest["name"], reference["key"]) == ("BUNDLE_DIGEST", "digest")
            settings = _of_namespace(rendered[OF_VOLUME], manifest)
            assert named(settings, "ConfigMap", reference["name"])["data"] == {"digest": BUNDLE_DIGEST}
            assert reference["name"] != "bundle", "its name has a hash of the digest, so that a new one rolls the tier"


# --- who reaches whom ------------------------------------------------------------------------------------------------


def chosen(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether a label selector takes these labels."""
    for expression in selector.get("matchExpressions", []):
        has = expression["key"] in labels
        wanted = {"Exists": has, "In": has and labels.get(expression["key"]) in expression.get("values", [])}
        if not wanted[expression["operator"]]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def labels_of(manifest: Manifest) -> dict[str, str]:
    """Those of the pods that it makes."""
    return dict(manifest["spec"]["template"]["metadata"]["labels"])


def rules(manifests: list[Manifest], direction: str, of: Manifest) -> list[Manifest]:
    """What the policies let through to or from a set of pods."""
    mine = [
        policy["spec"]
        for policy in manifests
        if policy["kind"] == "NetworkPolicy"
        and policy["metadata"]["namespace"] == of["metadata"]["namespace"]
        and chosen(policy["spec"]["podSelector"], labels_of(of))
        and direction in policy["spec"]["policyTypes"]
    ]
    assert mine, "a pod without a policy of this direction is open to all"
    return [rule for spec in mine for rule in spec.get(direction.lower(), [])]


def allows(manifests: list[Manifest], direction: str, of: Manifest, other: Manifest, port: tuple[str, int]) -> bool:
    """Whether the policies let traffic between two sets of pods through, as seen by one side."""
    outside, namespace, foreign = labels_of(other), of["metadata"]["namespace"], other["metadata"]["namespace"]
    side = {"Ingress": "from", "Egress": "to"}[direction]
    for rule in rules(manifests, direction, of):
        if not any(each["port"] in port for each in rule["ports"]):
            continue
        if side not in rule:
            return True
        for peer in rule[side]:
            spaces = {"kubernetes.io/metadata.name": foreign}
            near = chosen(peer["namespaceSelector"], spaces) if "namespaceSelector" in peer else namespace == foreign
            if near and chosen(peer.get("podSelector", {}), outside):
                return True
    return False


@every
def test_clients_reach_their_brokers_and_nobody_reaches_anything_else_but_health_ports(rendered, path):
    manifests = rendered[path]
    everybody = [manifest for manifest, _ in pods(manifests)]
    ports = {"clients": ("clients", 9092), "controller": ("controller", 9093), "health": ("health", 9400)}
    reached = set()
    for one, other in itertools.product(everybody, repeat=2):
        for what, port in ports.items():
            if allows(manifests, "Egress", one, other, port) and allows(manifests, "Ingress", other, one, port):
                here, there = (f"{m['metadata']['namespace']}/{m['metadata']['name']}" for m in (one, other))
                reached.add((here, there, what))
    expected = set()
    for namespace in {m["metadata"]["namespace"] for m in everybody}:
        here = [m["metadata"]["name"] for m in everybody if m["metadata"]["namespace"] == namespace]
        expected |= {(f"{namespace}/{name}", f"{namespace}/kafka", "clients") for name in here}
        expected.add((f"{namespace}/kafka", f"{namespace}/kafka", "controller"))
    if path.endswith("edge-cloud"):
        expected.add(("branchy-edge/edge-tier", "branchy-cloud/kafka", "clients"))
    assert reached == expected


def open_ports(manifests: list[Manifest], direction: str, of: Manifest) -> set[tuple[object, str]]:
    """The ports, each with its protocol, by which a pod reaches or is reached by every address."""
    side = {"Ingress": "from", "Egress": "to"}[direction]
    free = [rule for rule in rules(manifests, direction, of) if side not in rule]
    return {(each["port"], each.get("protocol", "TCP")) for rule in free for each in rule["ports"]}


@every_documented_too
def test_names_can_be_asked_for_of_kube_dns_of_a_cache_on_the_node_and_of_openshifts(rendered, path):
    for manifest, _ in pods(rendered[path]):
        asked = set(itertools.product((53, 5353), ("UDP", "TCP")))
        assert open_ports(rendered[path], "Egress", manifest) == asked, manifest["metadata"]["name"]


@every
def test_the_api_servers_proxy_and_a_prometheus_on_the_nodes_network_reach_health_ports_and_nothing_else(
    rendered, path
):
    manifests = rendered[path]
    reached = {
        manifest["metadata"]["name"]: open_ports(manifests, "Ingress", manifest)
        for manifest, _ in pods(manifests)
        if open_ports(manifests, "Ingress", manifest)
    }
    assert reached == {f"{name}-tier": {("health", "TCP")} for name in tiers(manifests)}


# --- Kafka -----------------------------------------------------------------------------------------------------------

KAFKAS_VOLUMES = tuple(map(PurePosixPath, ("/etc/kafka/secrets", "/var/lib/kafka/data", "/mnt/shared/config")))
"""What the Dockerfile of the official image declares: https://github.com/apache/kafka/blob/4.2.0/docker/jvm/Dockerfile"""


@every
def test_no_volume_of_the_brokers_image_lies_over_what_is_mounted_and_their_data_is_in_the_claim(rendered, path):
    """containerd puts an empty directory over each volume of an image that is not itself a mount of the pod's."""
    found = 0
    for manifest, pod in pods(rendered[path]):
        if manifest["metadata"]["name"] != "kafka":
            continue
        (claim,) = manifest["spec"]["volumeClaimTemplates"]
        data = PurePosixPath(settings_of(_of_namespace(rendered[path], manifest))["log.dirs"])
        for container in containers(pod):
            mounts = {PurePosixPath(mount["mountPath"]): mount["name"] for mount in container["volumeMounts"]}
            assert not [(volume, each) for volume in KAFKAS_VOLUMES for each in volume.parents if each in mounts]
            assert mounts[data.parent] == claim["metadata"]["name"], "a folder in it: its own root has a lost+found"
            found += 1
    assert found == (4 if path.endswith("edge-cloud") else 2)


def test_the_images_of_branchy_declare_no_volume():
    for dockerfile in DOCKERFILES.glob("*.Dockerfile"):
        assert not [i for stage in stages(dockerfile) for i in stage if i.keyword == "VOLUME"], dockerfile.name


@every
def test_a_pod_that_never_gets_ready_does_not_keep_its_node_from_being_emptied(rendered, path):
    budgets = [m["spec"] for m in rendered[path] if m["kind"] == "PodDisruptionBudget"]
    assert len(budgets) >= 4
    assert {budget["unhealthyPodEvictionPolicy"] for budget in budgets} == {"AlwaysAllow"}


@every
def test_one_broker_may_be_away_and_no_two_by_somebodys_will(rendered, path):
    kafkas = [m for m in rendered[path] if m["kind"] == "StatefulSet" and m["metadata"]["name"] == "kafka"]
    assert len(kafkas) == (2 if path.endswith("edge-cloud") else 1)
    for kafka in kafkas:
        assert kafka["spec"]["replicas"] == 3
        assert kafka["spec"]["podManagementPolicy"] == "Parallel", "a quorum is there before a first one is ready"
        assert kafka["spec"]["minReadySeconds"] >= 30, "a broker listens before it has copied what it missed"
        budget = named(_of_namespace(rendered[path], kafka), "PodDisruptionBudget", "kafka")
        assert budget["spec"]["maxUnavailable"] == 1
        assert chosen(budget["spec"]["selector"], kafka["spec"]["template"]["metadata"]["labels"])
        apart = "podAntiAffinity" in kafka["spec"]["template"]["spec"].get("affinity", {})
        assert apart == (not path.endswith("local")), "one node has to do for all, and is all that it survives"


def settings_of(manifests: list[Manifest]) -> dict[str, str]:
    """The brokers' `server.properties`."""
    text = named(manifests, "ConfigMap", "kafka")["data"]["server.properties"]
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len({line.partition("=")[0] for line in lines}) == len(lines)
    return dict(line.split("=", 1) for line in lines)


def test_tls_changes_of_the_brokers_settings_what_is_about_security_and_nothing_else(rendered):
    plain, secure = settings_of(rendered["."]), settings_of(rendered["overlays/tls"])
    assert {key for key in plain if secure.get(key) != plain[key]} == {
        "config.providers",
        "listener.security.protocol.map",
    }
    added = secure.keys() - plain.keys()
    words = ("ssl", "sasl", "config.providers.files", "authorizer", "super.users")
    assert all(any(word in key for word in words) for key in added)


def test_with_tls_each_client_logs_in_as_itself_and_its_secret_is_its_own(rendered, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    manifests = rendered["overlays/tls"]
    users = {"edge-tier": "edge", "fog-tier": "fog", "cloud-tier": "cloud", "topics": "operator", "device": "device"}
    for manifest, pod in pods(manifests):
        if manifest["metadata"]["name"] == "kafka":
            continue
        user = users.pop(manifest["metadata"]["name"])
        container = pod["containers"][-1]
        with monkeypatch.context() as environment:
            for name, value in variables(container, manifests).items():
                environment.setenv(name, value or "0")
            environment.setenv("BRANCHY_BUNDLE", "/bundle")
            back = load(DeviceSettings, {}).back
        assert (back.security, back.username, back.sasl_mechanism) == ("SASL_SSL", user, "SCRAM-SHA-512")
        secrets = [v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v]
        assert [secret.rpartition("-")[0] for secret in secrets] == [f"{user}-credentials"]
        held = named(manifests, "Secret", secrets[0])["data"]
        (mount,) = [m for m in container["volumeMounts"] if m["name"] == "credentials"]
        for file in (back.ca_file, back.certificate_file, back.key_file, back.password_file):
            assert file is not None
            assert str(file.parent) == mount["mountPath"]
            assert file.name in held
    assert not users


# --- autoscale -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def scaled_object() -> Manifest:
    """The JSON schema of KEDA's `ScaledObject`, out of its own definition. Without Go: as without kustomize."""
    try:
        module = fetch_module(KEDA_MODULE, os.environ)
    except BranchyError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    definition = yaml.safe_load((module / "config/crd/bases/keda.sh_scaledobjects.yaml").read_text(encoding="utf-8"))
    (version,) = [each for each in definition["spec"]["versions"] if f"keda.sh/{each['name']}" == KEDA]
    return closed(version["schema"]["openAPIV3Schema"])


def closed(schema: Any) -> Any:
    """The schema, with which a field that it does not name is an error, as it is to a strict server."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    return {"additionalProperties": False, **inner} if isinstance(schema.get("properties"), dict) else inner


def test_each_scaled_object_is_what_keda_takes_and_has_no_unknown_field(rendered, scaled_object):
    found = [manifest for manifest in rendered["overlays/autoscale"] if manifest["apiVersion"] == KEDA]
    assert len(found) == 3
    for manifest in found:
        jsonschema.validate(manifest, scaled_object)
        wrong = {**manifest, "spec": {**manifest["spec"], "maxReplicas": 12}}
        with pytest.raises(jsonschema.ValidationError, match="'maxReplicas' was unexpected"):
            jsonschema.validate(wrong, scaled_object)


def test_each_tier_is_scaled_by_its_oldest_waiting_request_and_never_above_its_partitions(rendered):
    manifests = rendered["overlays/autoscale"]
    scaled = {m["metadata"]["name"].removesuffix("-tier"): m["spec"] for m in manifests if m["apiVersion"] == KEDA}
    assert set(scaled) == set(tiers(manifests))
    for name, spec in scaled.items():
        assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": f"{name}-tier"}
        assert 1 <= spec["minReplicaCount"] <= spec["maxReplicaCount"] <= PARTITIONS
        (trigger,) = spec["triggers"]
        assert f'branchy_oldest_waiting_seconds{{namespace="branchy",tier="{name}"}}' in trigger["metadata"]["query"]
        assert trigger["metadata"]["ignoreNullValues"] == "false", "KEDA would take missing figures for idleness"
        assert "replicas" not in tiers(manifests)[name]["spec"], "applying again would undo the scaling"
