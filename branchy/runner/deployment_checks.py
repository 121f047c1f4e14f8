"""What of a deployment contradicts itself, or does not fit its bundle: told before anything is applied."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator, Mapping, Sequence

from branchy.cluster.objects import (
    Manifest,
    brokers,
    component,
    containers,
    key,
    namespaces,
    of_kind,
    pod_template,
    tiers,
    topic_jobs,
    variables,
)
from branchy.config import ServeSettings, load_variables
from branchy.core import topics
from branchy.core.cascade import CascadeSpec
from branchy.core.wire import MAX_BUDGET_MS
from branchy.errors import ConfigError, UsageError
from branchy.runner.tier import DRAIN_S
from branchy.transport.kafka.topic_settings import ROOM_BYTES
from branchy.transport.kafka.topics import PARTITIONS

REQUEST_BYTES = 104_857_600
"""Kafka's own `socket.request.max.bytes`: nothing larger gets to a broker, whatever a topic would take."""
LIMITS = ("socket.request.max.bytes", "message.max.bytes")


def problems(manifests: Sequence[Manifest], spec: CascadeSpec | None, limit_bytes: int | None) -> list[str]:
    """Everything that is wrong with objects by themselves, in a line each; empty when nothing is.

    Args:
        manifests: the objects as they would be applied.
        spec: what the bundle holds; None where it is not known.
        limit_bytes: the largest message that the brokers take; None takes what their settings here say.
    """
    out = [*_scaling(manifests), *_certificates(manifests)]
    for namespace in namespaces(manifests):
        here = [each for each in manifests if key(each).namespace == namespace]
        out += _replicas(here)
        out += _copies(here)
        for tier in tiers(here):
            out += _tier(tier, here, spec)
        if spec is not None:
            out += _messages(here, spec, limit_bytes)
    return out


def _replicas(here: Sequence[Manifest]) -> Iterator[str]:
    partitions = _partitions(here)
    if partitions is None:
        return
    most = {component(each): each["spec"].get("replicas", 1) for each in tiers(here)}
    for scaled in of_kind(here, "ScaledObject"):
        name = component(scaled)
        most[name] = max(most.get(name, 0), scaled["spec"].get("maxReplicaCount", 100))
    for name, replicas in sorted(most.items()):
        if replicas > partitions:
            yield (
                f"tier {name} has up to {replicas} replicas and its topic {partitions} partitions: "
                f"expected at most {partitions}, one more would get no requests"
            )


def _partitions(here: Sequence[Manifest]) -> int | None:
    """Of the topics made in a namespace; None where none are, and others' have to be asked."""
    jobs = topic_jobs(here)
    return int(_flag(jobs[0], "--partitions") or PARTITIONS) if jobs else None


def _flag(manifest: Manifest, flag: str) -> str | None:
    for container in containers(manifest):
        words: list[str] = [*(container.get("command") or []), *(container.get("args") or [])]
        for word, following in zip(words, [*words[1:], ""], strict=True):
            if word == flag:
                return following
            if word.startswith(f"{flag}="):
                return word.partition("=")[2]
    return None


def _copies(here: Sequence[Manifest]) -> Iterator[str]:
    nodes = sum(each["spec"].get("replicas", 1) for each in brokers(here))
    for job in topic_jobs(here):
        copies = int(_flag(job, "--replication") or 0)
        if nodes and copies > nodes:
            yield f"the topics have {copies} copies on {nodes} brokers: expected at most one a broker"


def _scaling(manifests: Sequence[Manifest]) -> Iterator[str]:
    sets = {(key(each).namespace, key(each).name): each for each in of_kind(manifests, "StatefulSet")}
    for scaled in of_kind(manifests, "ScaledObject"):
        spec, own = scaled["spec"], key(scaled)
        target = sets.get((own.namespace, spec["scaleTargetRef"]["name"]))
        if target is None:
            yield f"{own} scales {spec['scaleTargetRef']['name']}, which is not there"
        elif "replicas" in target["spec"]:
            yield f"{own} scales {key(target)}, whose replicas are set too: leave one of them out"
        if spec.get("minReplicaCount", 0) > spec.get("maxReplicaCount", 100):
            yield f"{own} has more replicas at least than at most"


def _tier(tier: Manifest, here: Sequence[Manifest], spec: CascadeSpec | None) -> Iterator[str]:
    name, template = component(tier), pod_template(tier)
    assert template is not None
    settings = _settings(tier, here)
    if isinstance(settings, str):
        yield f"tier {name}: {settings}"
        return
    if spec is not None:
        try:
            spec.tier(settings.tier)
        except UsageError as error:
            yield f"tier {name}: the bundle does not fit: {error}"
    ports = [p["containerPort"] for c in containers(tier) for p in c.get("ports") or [] if p.get("name") == "health"]
    if ports and ports != [settings.health.port]:
        yield (
            f"tier {name}: its health port is {settings.health.port} (BRANCHY_HEALTH_PORT), "
            f"and its probes ask port {ports[0]}"
        )
    grace_s, needed_s = template["spec"].get("terminationGracePeriodSeconds", 30), MAX_BUDGET_MS / 1e3 + DRAIN_S
    if grace_s < needed_s:
        yield (
            f"tier {name}: terminationGracePeriodSeconds is {grace_s}, expected at least {needed_s:g}: "
            "the longest deadline, and time to settle"
        )


def _settings(tier: Manifest, here: Sequence[Manifest]) -> ServeSettings | str:
    """A tier's settings; or why they are none. What an image says itself, and what a pod gets, stands in."""
    container = next(each for each in containers(tier) if each["name"] == "tier")
    found = {"BRANCHY_TIER": component(tier), "BRANCHY_BUNDLE": "/bundle"}
    found |= {name: value or "0" for name, value in variables(container, here, key(tier).namespace).items()}
    try:
        return load_variables(found)
    except ConfigError as error:
        return str(error)


def _messages(here: Sequence[Manifest], spec: CascadeSpec, limit_bytes: int | None) -> Iterator[str]:
    """Tensors that no broker would take. Topics are made with room for them; brokers have a limit of their own."""
    settings = _server_properties(here)
    if limit_bytes is None and not settings:
        return  # others' brokers, of which nothing is known
    limits = {name: int(settings[name]) for name in LIMITS if settings.get(name, "").isdigit()}
    limits.setdefault(LIMITS[0], REQUEST_BYTES)
    where, most = min(limits.items(), key=lambda item: item[1])
    if limit_bytes is not None:
        where, most = min((where, most), ("--message-limit", limit_bytes), key=lambda item: item[1])
    for topic, largest in topics.all_topics(spec, spec.name).items():
        if topic.endswith(".requests") and largest + ROOM_BYTES > most:
            yield (
                f"the bundle's messages for {topic} have up to {largest} bytes and the brokers take {most} ({where}): "
                f"expected at least {largest + ROOM_BYTES}; raise it, or train with a smaller uplink"
            )


def _server_properties(here: Sequence[Manifest]) -> Mapping[str, str]:
    """The brokers' settings; empty where the brokers are not among the objects."""
    mounted = {
        volume["configMap"]["name"]
        for each in brokers(here)
        for volume in (pod_template(each) or {"spec": {}})["spec"].get("volumes") or []
        if "configMap" in volume
    }
    text = "\n".join(
        (each.get("data") or {}).get("server.properties", "")
        for each in of_kind(here, "ConfigMap")
        if key(each).name in mounted
    )
    lines = [line.partition("=") for line in text.splitlines() if "=" in line and not line.lstrip().startswith("#")]
    return {name.strip(): value.strip() for name, _, value in lines}


def _certificates(manifests: Sequence[Manifest]) -> Iterator[str]:
    """A brokers' certificate that is not good for the names that clients reach them by."""
    for secret in of_kind(manifests, "Secret"):
        own, text = key(secret), (secret.get("data") or {}).get("broker.pem")
        sets = brokers([m for m in manifests if key(m).namespace == own.namespace])
        if text is None or not sets:
            continue
        try:
            pem = base64.b64decode(text).decode("ascii")
            begin, end = pem.index(ssl.PEM_HEADER), pem.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)
            certificate = ssl.PEM_cert_to_DER_cert(pem[begin:end])
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificate)  # reads it
        except (ValueError, ssl.SSLError):
            yield f"{own}: expected a PEM certificate in broker.pem, got something else"
            continue
        if missing := _not_named(certificate, [name for each in sets for name in _host_names(each)]):
            yield (
                f"the brokers' certificate is not good for {missing}: make it for this namespace, such as by "
                f"sh deploy/k8s/overlays/tls/make_secrets.sh {own.namespace} with an empty secrets folder"
            )


def _host_names(brokers_set: Manifest) -> Iterator[str]:
    own, service = key(brokers_set), brokers_set["spec"]["serviceName"]
    for number in range(brokers_set["spec"].get("replicas", 1)):
        yield f"{own.name}-{number}.{service}.{own.namespace}.svc"


def _not_named(certificate: bytes, names: Sequence[str]) -> str | None:
    """The first of these names that a certificate is not for: in DER a name of subjectAltName stands as it is."""
    for name in names:
        wildcard = f"*.{name.partition('.')[2]}"
        if name.encode() not in certificate and wildcard.encode() not in certificate:
            return name
    return None
