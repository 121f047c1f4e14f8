"""What a command needs rights for: asked of the API server before anything is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from branchy.cluster.api import EVENTS, JOBS, PODS, STATEFUL_SETS, Api, Resource
from branchy.cluster.changes import Action, Planned
from branchy.cluster.objects import Manifest, key, namespaces
from branchy.errors import ClusterError
from branchy.runner.deployment import KINDS, kind_of, refuse

TO_FOLLOW = (
    ("list", PODS, ""),
    ("watch", PODS, ""),
    ("get", PODS, "log"),
    ("list", EVENTS, ""),
    ("list", STATEFUL_SETS, ""),
    ("list", JOBS, ""),
)
"""Verb, kind and subresource: the rights to follow what comes of an apply."""


class Right(NamedTuple):
    """To do something with objects of a kind; `namespace` counts only for kinds that are in one."""

    verb: str
    resource: Resource
    namespace: str
    subresource: str = ""

    def __str__(self) -> str:
        sub = f"/{self.subresource}" if self.subresource else ""
        group = f" of {self.resource.group}" if self.resource.group else ""
        where = self.namespace if self.resource.namespaced else ""
        return f"{self.verb} {self.resource.plural}{sub}{group} in {where or 'the cluster'}"


def demand(api: Api, rights: Iterable[Right]) -> None:
    """Look whether who asks has all of them; each is asked for once.

    Raises:
        ClusterError: one is missing; the message names verb, resource and namespace.
    """
    missing = [f"you may not {each}" for each in dict.fromkeys(rights) if not api.may(*each)]
    refuse(missing, ClusterError, "nothing was changed; ask who runs the cluster for a role")


def to_apply(api: Api, manifests: Sequence[Manifest], resources: Mapping[tuple[str, str], Resource]) -> Iterator[Right]:
    """To apply objects, to find what earlier ones have left over, and to follow what comes of it."""
    for each in manifests:
        for verb in ("get", "create", "patch"):
            yield Right(verb, resources[kind_of(each)], key(each).namespace)
    for namespace in namespaces(manifests):
        for kind in KINDS:
            resource = api.resource(*kind)
            if resource is not None:
                yield Right("list", resource, namespace)
        yield from (Right(verb, resource, namespace, sub) for verb, resource, sub in TO_FOLLOW)


def to_take_away(api: Api, steps: Iterable[Planned]) -> Iterator[Right]:
    """To delete what a plan removes or makes anew."""
    for each in steps:
        if each.action in (Action.REMOVE, Action.REPLACE):
            resource = api.resource(each.key.api_version, each.key.kind)
            if resource is not None:
                yield Right("delete", resource, each.key.namespace)


def to_delete(found: Iterable[tuple[Resource, str]], spaces: Iterable[str]) -> Iterator[Right]:
    """To delete objects of kinds in namespaces, and to see that they, and the pods there, are gone."""
    for resource, namespace in found:
        yield from (Right(verb, resource, namespace) for verb in ("delete", "get"))
    yield from (Right("list", PODS, namespace) for namespace in spaces)
