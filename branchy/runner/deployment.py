"""A deployment: an overlay with the choices in it, and what a cluster has of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import branchy
from branchy.cluster import kustomize
from branchy.cluster.api import Api, Resource
from branchy.cluster.choices import Choices, chosen
from branchy.cluster.objects import OWNER, PART_OF, Manifest, in_order
from branchy.errors import ClusterError, UsageError
from branchy.runner.deployment_checks import problems
from branchy.store.bundle import Bundle

HOME = Path(branchy.__file__).parents[1] / "deploy" / "k8s"
"""Branchy's own manifests, beside its sources in a checkout; where branchy was installed without, not there."""

SELECTED = f"{PART_OF}={OWNER}"
"""Label selector of all that is part of a deployment."""

KINDS = (
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "Service"),
    ("apps/v1", "StatefulSet"),
    ("batch/v1", "Job"),
    ("policy/v1", "PodDisruptionBudget"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("keda.sh/v1alpha1", "ScaledObject"),
)
"""What overlays may have had before: looked for when what is left over is removed, and all is deleted."""


@dataclass(frozen=True, slots=True)
class DeployOptions:
    """What is deployed, and where.

    Attributes:
        overlay: the name of one of branchy's, or a directory with a kustomization.
        context: of the kubeconfig; None takes its current one.
        namespace: in place of the overlay's.
        bundle: a copy here of the bundle that the images or the volume have; None checks less.
        claim: the claim on the volume with the bundle; None takes the bundle from the images.
        images: by name in the overlay, or under "" for all that run branchy with the bundle.
        replicas: by tier, or under "" for every one.
        limit_bytes: the largest message that the brokers take, where the manifests do not say it.
        force: take over fields that others have set to something else.
        home: where branchy's own manifests are.
    """

    overlay: str = "local"
    context: str | None = None
    namespace: str | None = None
    bundle: Path | None = None
    claim: str | None = None
    images: Mapping[str, str] = field(default_factory=dict)
    replicas: Mapping[str, int] = field(default_factory=dict)
    limit_bytes: int | None = None
    force: bool = False
    home: Path = HOME


def rendered(options: DeployOptions) -> list[Manifest]:
    """The overlay's objects with the choices in them, in the order in which they are applied.

    Raises:
        UsageError: a choice is not possible, or what was chosen contradicts itself or the bundle.
        BundleError: the bundle cannot be loaded.
        ClusterError: the overlay cannot be rendered.
    """
    folder = kustomize.overlay(options.overlay, options.home)
    components: list[Path] = []
    if options.claim is not None:
        if options.bundle is None:
            raise UsageError("--claim needs --bundle too: a copy of what is on the volume, whose digest it must have")
        components = [kustomize.component("bundle-volume", options.home, f"--claim {options.claim}")]
    bundle = None if options.bundle is None else Bundle.load(options.bundle)
    spec, digest = (None, None) if bundle is None else (bundle.spec, bundle.digest)
    choices = Choices(options.namespace, options.images, options.replicas, digest, options.claim)
    found = in_order(chosen(kustomize.render(folder, components), choices))
    refuse(problems(found, spec, options.limit_bytes), UsageError, "nothing was applied")
    return found


def known_resources(api: Api, manifests: Sequence[Manifest]) -> dict[tuple[str, str], Resource]:
    """How each kind among the objects is asked for.

    Raises:
        ClusterError: the cluster does not have one of them.
    """
    found = {kind: api.resource(*kind) for kind in sorted({kind_of(each) for each in manifests})}
    missing = [f"{kind} ({version})" for (version, kind), resource in found.items() if resource is None]
    if missing:
        hint = "; install KEDA first" if any("keda.sh" in each for each in missing) else ""
        raise ClusterError(f"the cluster {api.session.context} does not know the kind {', '.join(missing)}{hint}")
    return {kind: resource for kind, resource in found.items() if resource is not None}


def parts(api: Api, namespace: str, known: Sequence[tuple[str, str]] = KINDS) -> Iterator[tuple[Resource, Manifest]]:
    """Everything in a namespace that is part of a deployment: its pods and disks aside."""
    for kind in known:
        resource = api.resource(*kind)
        if resource is not None:
            for each in api.listed(resource, namespace, SELECTED).items:
                yield resource, each


def kind_of(manifest: Manifest) -> tuple[str, str]:
    """An object's API version and kind."""
    return manifest["apiVersion"], manifest["kind"]


def refuse(found: Sequence[str], error: Callable[[str], Exception], hint: str = "") -> None:
    """Raise what is wrong as one line, if something is."""
    if found:
        more = f" (and {len(found) - 4} more)" if len(found) > 4 else ""
        raise error("; ".join(found[:4]) + more + (f"; {hint}" if hint else ""))
