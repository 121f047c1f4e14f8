"""What is chosen on the command line, put into the rendered objects: namespace, images, replicas, bundle."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from branchy.cluster.objects import (
    DEVICE,
    KAFKA,
    MANAGED_BY,
    MANAGER,
    OWNER,
    PART_OF,
    Manifest,
    component,
    containers,
    is_tier,
    namespaces,
    of_kind,
    pod_template,
    tiers,
    topic_jobs,
)
from branchy.errors import UsageError

BUNDLE = "branchy.io/bundle"
"""Annotation of the pods that hold a bundle: its digest. Another one is another pod, and so a rolling update."""

DIGEST = "BUNDLE_DIGEST"
"""Variable of the containers that hold a bundle on a volume against its digest."""

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_IMAGE = re.compile(r"[a-z0-9][\w.\-:/]*?(:[\w][\w.-]{0,127}|@sha256:[0-9a-f]{64})", re.ASCII)
_OWN_PREFIX = OWNER
"""Our overlays' namespaces are `branchy`, or `branchy-` and a site."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What the rendered objects are changed to.

    Attributes:
        namespace: in place of the overlay's; None leaves it. Where an overlay has several, `branchy` in their names.
        images: by the image's name in the overlay, without its tag, the one to run; under "" that of all
            containers that run branchy with the bundle.
        replicas: by tier how many; under "" that of every tier.
        bundle: the bundle's digest; None does not say.
        claim: the claim on the volume that the bundle is on; None for the images' own.
    """

    namespace: str | None = None
    images: Mapping[str, str] = field(default_factory=dict)
    replicas: Mapping[str, int] = field(default_factory=dict)
    bundle: str | None = None
    claim: str | None = None


def chosen(manifests: Sequence[Manifest], choices: Choices) -> list[Manifest]:
    """The objects as they are to be applied: a copy, with the choices in it and the labels of what is deployed.

    Raises:
        UsageError: a choice is not possible; the message names the flag.
    """
    found = copy.deepcopy(list(manifests))
    for each in found:
        own = each["metadata"].setdefault("labels", {})
        own |= {PART_OF: OWNER, MANAGED_BY: MANAGER}
    _set_images(found, choices.images)
    _set_replicas(found, choices.replicas)
    if choices.claim is not None:
        _set_claim(found, choices.claim)
    if choices.bundle is not None:
        _set_bundle(found, choices.bundle)
    for job in topic_jobs(found):
        job["spec"].pop("ttlSecondsAfterFinished", None)  # it stays, as the proof of what was made
    return _renamed(found, choices.namespace) if choices.namespace else found


def parse_pairs(flag: str, given: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` or `VALUE` of a flag that may be given several times, by name; `VALUE` alone is under "".

    Raises:
        UsageError: a name is given twice, or a value is missing.
    """
    out: dict[str, str] = {}
    for each in given:
        name, equals, value = each.rpartition("=")
        if not value or (equals and not name):
            raise UsageError(f"{flag} {each}: expected [NAME=]VALUE")
        if name in out:
            raise UsageError(f"{flag} {each}: given twice for {name or 'all'}")
        out[name] = value
    return out


def parse_replicas(given: Sequence[str]) -> dict[str, int]:
    """`--replicas`: `N` for every tier, `TIER=N` for one.

    Raises:
        UsageError: it is something else.
    """
    pairs = parse_pairs("--replicas", given)
    for name, value in pairs.items():
        if not (value.isascii() and value.isdigit() and int(value) <= 10_000):
            raise UsageError(f"--replicas {name}{'=' if name else ''}{value}: expected a number from 0 to 10000")
    return {name: int(value) for name, value in pairs.items()}


def image_name(image: str) -> str:
    """An image without its tag and digest."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def _with_bundle(manifest: Manifest) -> list[Manifest]:
    """The containers of an object that run branchy with the bundle: all but Kafka's, and the device itself."""
    if component(manifest) == KAFKA:
        return []
    return [each for each in containers(manifest) if not (component(manifest) == DEVICE and each["name"] == DEVICE)]


def _set_images(manifests: Sequence[Manifest], images: Mapping[str, str]) -> None:
    known = sorted({image_name(c["image"]) for each in manifests for c in containers(each)})
    for name, image in images.items():
        if not _IMAGE.fullmatch(image):
            raise UsageError(f"--image {image}: expected one with its tag or digest, such as registry/branchy-edge:1")
        if name and name not in known:
            raise UsageError(f"--image {name}={image}: the overlay has no image {name}; it has {', '.join(known)}")
    for each in manifests:
        of_all = _with_bundle(each)
        for container in containers(each):
            wanted = images.get(image_name(container["image"])) or (images.get("") if container in of_all else None)
            container["image"] = wanted or container["image"]


def _set_replicas(manifests: Sequence[Manifest], replicas: Mapping[str, int]) -> None:
    found = {component(each): each for each in tiers(manifests)}
    unknown = sorted(set(replicas) - set(found) - {""})
    if unknown:
        raise UsageError(f"--replicas {unknown[0]}: expected one of the tiers {', '.join(sorted(found))}")
    for name, manifest in found.items():
        wanted = replicas.get(name, replicas.get(""))
        if wanted is not None:
            manifest["spec"]["replicas"] = wanted


def _set_claim(manifests: Sequence[Manifest], claim: str) -> None:
    for each in manifests:
        template = pod_template(each)
        for volume in (template or {}).get("spec", {}).get("volumes") or []:
            if volume["name"] == "bundle" and "persistentVolumeClaim" in volume:
                volume["persistentVolumeClaim"]["claimName"] = claim


def _set_bundle(manifests: Sequence[Manifest], digest: str) -> None:
    for each in manifests:
        template = pod_template(each)
        if template is not None and component(each) != KAFKA and (is_tier(each) or each["kind"] == "Job"):
            template.setdefault("metadata", {}).setdefault("annotations", {})[BUNDLE] = digest
            for container in containers(each):
                for variable in container.get("env") or []:
                    if variable["name"] == DIGEST:
                        variable.pop("valueFrom", None)
                        variable["value"] = digest


def _renamed(manifests: list[Manifest], wanted: str) -> list[Manifest]:
    names = namespaces(manifests)
    if len(names) == 1:
        new = {names[0]: wanted}
    elif all(name == _OWN_PREFIX or name.startswith(f"{_OWN_PREFIX}-") for name in names):
        new = {name: wanted + name.removeprefix(_OWN_PREFIX) for name in names}
    else:
        raise UsageError(
            f"--namespace {wanted}: the overlay has several, {', '.join(names)}; write an overlay of your own"
        )
    for name in new.values():
        if not _LABEL.fullmatch(name):
            raise UsageError(f"--namespace {name}: expected up to 63 of a to z, 0 to 9 and dashes")
    for each in of_kind(manifests, "Namespace"):
        each["metadata"]["name"] = new[each["metadata"]["name"]]
    for each in manifests:
        meta = each["metadata"]
        if meta.get("namespace"):
            meta["namespace"] = new[meta["namespace"]]
    return [each if each["kind"] == "Secret" else _mentions(each, new) for each in manifests]


def _mentions(manifest: Manifest, new: Mapping[str, str]) -> Manifest:
    """The object with the namespaces' new names where it names them: in addresses, queries and selectors."""
    names = "|".join(sorted(map(re.escape, new), key=len, reverse=True))
    address = re.compile(rf"(?<=\.)({names})(?=\.svc\b)")
    query = re.compile(rf'(?<=\bnamespace=")({names})(?=")')

    def text(value: str) -> str:
        for pattern in (address, query):
            value = pattern.sub(lambda match: new[match[1]], value)
        return value

    def selector(name: str, value: Any) -> Any:
        return new.get(value, value) if name == "kubernetes.io/metadata.name" else value

    return {name: _everywhere(value, text, selector) for name, value in manifest.items()}


def _everywhere(value: Any, text: Callable[[str], str], selector: Callable[[str, Any], Any]) -> Any:
    if isinstance(value, dict):
        return {
            k: selector(k, v) if isinstance(v, str) and selector(k, v) != v else _everywhere(v, text, selector)
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [_everywhere(each, text, selector) for each in value]
    return text(value) if isinstance(value, str) else value
