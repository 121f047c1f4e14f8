from __future__ import annotations

import base64
import copy
import subprocess
from collections.abc import Callable
from dataclasses import replace

import pytest

from branchy.cluster.objects import brokers, component, key, of_kind, tiers, topic_jobs
from branchy.core.cascade import TensorSpec
from branchy.runner.deployment_checks import REQUEST_BYTES, problems


@pytest.fixture
def objects(local_objects):
    return copy.deepcopy(local_objects)


def settings_of(objects, name: str) -> dict[str, str]:
    (found,) = [each for each in of_kind(objects, "ConfigMap") if key(each).name.startswith(f"{name}-")]
    return found["data"]


def tier(objects, name: str):
    (found,) = [each for each in tiers(objects) if component(each) == name]
    return found


def test_branchys_own_overlay_has_none(objects):
    assert problems(objects, None, None) == []


def test_more_replicas_than_partitions(objects):
    tier(objects, "fog")["spec"]["replicas"] = 13
    (found,) = problems(objects, None, None)
    assert found.startswith("tier fog has up to 13 replicas and its topic 12 partitions")
    command = topic_jobs(objects)[0]["spec"]["template"]["spec"]["containers"][0]["command"]
    command[command.index("--partitions=12")] = "--partitions=13"
    assert problems(objects, None, None) == []


def scaled(least: int, most: int):
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "edge-tier", "namespace": "branchy", "labels": {"app.kubernetes.io/component": "edge"}},
        "spec": {"scaleTargetRef": {"name": "edge-tier"}, "minReplicaCount": least, "maxReplicaCount": most},
    }


def test_scaling_above_the_partitions_or_beside_replicas_that_are_set(objects):
    found = problems([*objects, scaled(5, 4)], None, None)
    assert [each.partition(":")[0] for each in found] == [
        "ScaledObject edge-tier in branchy scales StatefulSet edge-tier in branchy, whose replicas are set too",
        "ScaledObject edge-tier in branchy has more replicas at least than at most",
    ]
    del tier(objects, "edge")["spec"]["replicas"]
    assert problems([*objects, scaled(1, 12)], None, None) == []
    assert "up to 20 replicas" in problems([*objects, scaled(1, 20)], None, None)[0]
    objects.remove(tier(objects, "edge"))
    assert "scales edge-tier, which is not there" in problems([*objects, scaled(1, 12)], None, None)[0]


def test_more_copies_of_a_topic_than_brokers(objects):
    brokers(objects)[0]["spec"]["replicas"] = 2
    assert problems(objects, None, None) == ["the topics have 3 copies on 2 brokers: expected at most one a broker"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"BRANCHY_BACK_USERNAME": "edge"}, "username needs security SASL_SSL"),
        ({"BRANCHY_PENDNG": "5"}, "no setting is named BRANCHY_PENDNG"),
        ({"BRANCHY_BACK_BRKERS": "x:1"}, "back.brkers"),
        ({"BRANCHY_PENDING": "many"}, "setting pending from its variables"),
        (
            {"BRANCHY_HEALTH_PORT": "9401"},
            "its health port is 9401 (BRANCHY_HEALTH_PORT), and its probes ask port 9400",
        ),
    ],
)
def test_settings_that_contradict_each_other_name_the_tier_and_what_is_wrong(objects, settings, words, monkeypatch):
    monkeypatch.setenv("BRANCHY_PENDING", "nonsense")  # of this machine: none of the cluster's business
    settings_of(objects, "edge-settings").update(settings)
    (found,) = problems(objects, None, None)
    assert found.startswith("tier edge: ")
    assert words in found


def test_a_password_is_in_no_message(objects):
    settings_of(objects, "edge-settings").update(
        {"BRANCHY_BACK_PASSWORD": "hidden", "BRANCHY_BACK_SECURITY": "SASL_SSL"}
    )
    (found,) = problems(objects, None, None)
    assert "hidden" not in found


def test_a_pod_that_is_given_too_little_time_to_settle(objects):
    tier(objects, "cloud")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 39
    (found,) = problems(objects, None, None)
    assert found.startswith("tier cloud: terminationGracePeriodSeconds is 39, expected at least 40")


def test_a_bundle_with_other_stages_than_the_tiers_run(objects, toy_bundle):
    (found,) = problems(objects, toy_bundle.spec, None)
    assert found == "tier fog: the bundle does not fit: no stage 'fog' in this bundle; it has edge, hall, cloud, full"
    settings_of(objects, "fog-settings")["BRANCHY_TIER"] = "hall,cloud"
    assert problems(objects, toy_bundle.spec, None) == []


def large(spec, values: int):
    """The bundle of a first stage that sends up this many float32."""
    first, *rest = spec.stages
    return replace(spec, stages=(replace(first, activation=TensorSpec("activation", (values,))), *rest))


def test_activations_that_the_brokers_would_not_take(objects, toy_bundle):
    settings_of(objects, "fog-settings")["BRANCHY_TIER"] = "hall,cloud"
    room = 64 * 1024
    fits, not_any_more = ((REQUEST_BYTES - room) // 4, (REQUEST_BYTES - room) // 4 + 1)
    assert problems(objects, large(toy_bundle.spec, fits), None) == []
    (found,) = problems(objects, large(toy_bundle.spec, not_any_more), None)
    assert f"the brokers take {REQUEST_BYTES} (socket.request.max.bytes)" in found
    assert "branchy.toy.hall.requests" in found


def test_the_limit_is_the_lowest_of_what_brokers_and_flag_say(objects, toy_bundle):
    settings_of(objects, "fog-settings")["BRANCHY_TIER"] = "hall,cloud"
    spec = large(toy_bundle.spec, 250_000)
    assert problems(objects, spec, 2_000_000) == []
    assert "take 1000000 (--message-limit)" in problems(objects, spec, 1_000_000)[0]
    settings_of(objects, "kafka")["server.properties"] += "\nmessage.max.bytes=1048588\n"
    assert "take 1048588 (message.max.bytes)" in problems(objects, spec, 2_000_000)[0]
    others = [each for each in objects if component(each) != "kafka"]
    assert problems(others, spec, None) == [], "of others' brokers nothing is known"
    assert "take 1000000 (--message-limit)" in problems(others, spec, 1_000_000)[0]


def secret(pem: bytes, namespace: str = "branchy"):
    """What the brokers of `tls` have their certificate from."""
    meta = {"name": "kafka-tls", "namespace": namespace}
    data = {"broker.pem": base64.b64encode(pem).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data}


@pytest.fixture
def certificate(openssl, tmp_path) -> Callable[..., bytes]:
    """Makes one for these names, with its key behind it as the brokers have it."""

    def make(*names: str) -> bytes:
        files = ["-keyout", tmp_path / "key", "-out", tmp_path / "crt"]
        kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=broker"]
        more = ["-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names)]
        subprocess.run(["openssl", "req", *kind, *more, *files], check=True, capture_output=True, timeout=60)
        return (tmp_path / "crt").read_bytes() + (tmp_path / "key").read_bytes()

    return make


def hosts(namespace: str, brokers: int = 3) -> list[str]:
    return [f"kafka-{number}.kafka.{namespace}.svc" for number in range(brokers)]


def test_a_certificate_for_every_broker_or_for_any_is_fine(objects, certificate):
    assert problems([*objects, secret(certificate("localhost", *hosts("branchy")))], None, None) == []
    assert problems([*objects, secret(certificate("*.kafka.branchy.svc"))], None, None) == []


def test_a_certificate_for_another_namespace_or_too_few_brokers_names_who_has_none(objects, certificate):
    (found,) = problems([*objects, secret(certificate(*hosts("branchy-2")))], None, None)
    assert found == (
        "the brokers' certificate is not good for kafka-0.kafka.branchy.svc: make it for this namespace, such as by "
        "sh deploy/k8s/overlays/tls/make_secrets.sh branchy with an empty secrets folder"
    )
    (found,) = problems([*objects, secret(certificate(*hosts("branchy", brokers=2)))], None, None)
    assert "not good for kafka-2.kafka.branchy.svc" in found


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"no certificate",
        b"\xff\xfe",
        b"-----BEGIN CERTIFICATE-----\nMIIB",
        b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    ],
)
def test_what_is_no_certificate_names_the_secret_and_shows_nothing_of_it(objects, pem):
    assert problems([*objects, secret(pem)], None, None) == [
        "Secret kafka-tls in branchy: expected a PEM certificate in broker.pem, got something else"
    ]


def test_a_certificate_of_a_namespace_without_brokers_is_somebody_elses_business(objects):
    assert problems([*objects, secret(b"no certificate", "elsewhere")], None, None) == []
