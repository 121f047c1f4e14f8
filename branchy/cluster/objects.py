"""Kubernetes objects as plain data: what they are called, what part of a deployment they are, whose they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]
"""One object as JSON or YAML has it."""

PART_OF, OWNER = "app.kubernetes.io/part-of", "branchy"
"""The label of every object of a deployment."""

MANAGED_BY, MANAGER = "app.kubernetes.io/managed-by", "branchy-deploy"
"""The label of what `branchy deploy` applied, and removes when the overlay has it no more; and its field manager."""

COMPONENT, NAME = "app.kubernetes.io/component", "app.kubernetes.io/name"
KAFKA, TOPICS, DEVICE, TIER = "kafka", "topics", "device", "tier"

NAMESPACE_STEP, PARTS_STEP, BROKERS_STEP, TOPICS_STEP, TIERS_STEP, REST_STEP = range(6)
"""In this order objects are applied, and the other way round deleted."""

_PLAIN_KINDS = {
    "ConfigMap",
    "Secret",
    "Service",
    "ServiceAccount",
    "NetworkPolicy",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "Role",
    "RoleBinding",
}


@dataclass(frozen=True, order=True, slots=True)
class Key:
    """What one object is known by in a cluster; `namespace` is empty for what is in none."""

    namespace: str
    kind: str
    name: str
    api_version: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (f" in {self.namespace}" if self.namespace else "")


def key(manifest: Manifest) -> Key:
    """An object's own."""
    meta = manifest["metadata"]
    return Key(meta.get("namespace", ""), manifest["kind"], meta["name"], manifest["apiVersion"])


def labels(manifest: Manifest) -> Mapping[str, str]:
    """An object's labels."""
    return manifest["metadata"].get("labels") or {}


def ours(manifest: Manifest) -> bool:
    """Whether an object is part of a deployment of branchy's."""
    return labels(manifest).get(PART_OF) == OWNER


def pod_template(manifest: Manifest) -> Manifest | None:
    """What an object makes its pods from; None where it makes none."""
    template = (manifest.get("spec") or {}).get("template")
    return template if isinstance(template, dict) and "spec" in template else None


def containers(manifest: Manifest) -> Iterator[Manifest]:
    """All containers of the pods that an object makes, those that run first included."""
    template = pod_template(manifest)
    if template is not None:
        yield from template["spec"].get("initContainers") or []
        yield from template["spec"].get("containers") or []


def component(manifest: Manifest) -> str:
    """Which part of a deployment an object is: a tier's name, `kafka`, `topics`, `device`, or nothing."""
    own = labels(manifest)
    return own.get(COMPONENT) or (KAFKA if own.get(NAME) == KAFKA else "")


def is_tier(manifest: Manifest) -> bool:
    """Whether an object runs the replicas of a tier."""
    template = pod_template(manifest)
    return (
        manifest["kind"] == "StatefulSet"
        and template is not None
        and (template.get("metadata", {}).get("labels") or {}).get(NAME) == TIER
    )


def tiers(manifests: Iterable[Manifest]) -> list[Manifest]:
    """The objects that run tiers."""
    return [each for each in manifests if is_tier(each)]


def brokers(manifests: Iterable[Manifest]) -> list[Manifest]:
    """The objects that run Kafka."""
    return [each for each in manifests if each["kind"] == "StatefulSet" and component(each) == KAFKA]


def topic_jobs(manifests: Iterable[Manifest]) -> list[Manifest]:
    """The objects that make topics."""
    return [each for each in manifests if each["kind"] == "Job" and component(each) == TOPICS]


def of_kind(manifests: Iterable[Manifest], kind: str) -> list[Manifest]:
    """Those of one kind."""
    return [each for each in manifests if each["kind"] == kind]


def namespaces(manifests: Iterable[Manifest]) -> list[str]:
    """Every namespace that objects are in or are, each once, sorted."""
    found = {key(each).namespace or (key(each).name if each["kind"] == "Namespace" else "") for each in manifests}
    return sorted(found - {""})


def step(manifest: Manifest) -> int:
    """When an object is applied: what others need comes first."""
    kind, part = manifest["kind"], component(manifest)
    if kind == "Namespace":
        return NAMESPACE_STEP
    if kind in _PLAIN_KINDS:
        return PARTS_STEP
    if kind == "StatefulSet":
        return BROKERS_STEP if part == KAFKA else TIERS_STEP
    return TOPICS_STEP if kind == "Job" and part == TOPICS else REST_STEP


def in_order(manifests: Iterable[Manifest]) -> list[Manifest]:
    """Objects in the order in which they are applied."""
    return sorted(manifests, key=lambda each: (step(each), key(each)))


def variables(container: Manifest, manifests: Sequence[Manifest], namespace: str) -> dict[str, str]:
    """A container's environment, as far as the manifests tell it.

    Args:
        container: whose.
        manifests: what its ConfigMaps are looked for in.
        namespace: that it is in.

    Returns:
        Values by name; an empty one where it comes from the pod, a Secret, or a ConfigMap that is not among them.
    """
    maps = {key(m).name: m.get("data") or {} for m in of_kind(manifests, "ConfigMap") if key(m).namespace == namespace}
    out: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        if "configMapRef" in source:
            prefix = source.get("prefix", "")
            out |= {prefix + name: value for name, value in maps.get(source["configMapRef"]["name"], {}).items()}
    for each in container.get("env") or []:
        chosen = (each.get("valueFrom") or {}).get("configMapKeyRef") or {}
        out[each["name"]] = each.get("value") or maps.get(chosen.get("name", ""), {}).get(chosen.get("key", ""), "")
    return out
