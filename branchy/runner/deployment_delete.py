"""`branchy deploy delete`: what was applied is taken away, tiers before their brokers; the data only if told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from branchy.cluster.api import CLAIMS, NAMESPACES, PODS, Api, Resource
from branchy.cluster.objects import (
    KAFKA,
    REST_STEP,
    TIERS_STEP,
    TOPICS,
    Key,
    Manifest,
    brokers,
    component,
    key,
    namespaces,
    ours,
    step,
)
from branchy.errors import ClusterError
from branchy.runner.deployment import KINDS, SELECTED, kind_of, parts
from branchy.runner.deployment_apply import LOOK_S, Time
from branchy.runner.deployment_rights import demand, to_delete


class Found(NamedTuple):
    """An object that is there, and how its kind is asked for."""

    resource: Resource
    key: Key
    step: int


@dataclass(frozen=True, slots=True)
class Removal:
    """What a delete takes away.

    Attributes:
        objects: of the deployment, in the order in which they go.
        claims: on the brokers' disks.
        namespaces: that are branchy's own.
        data: whether claims and namespaces go too.
    """

    objects: tuple[Found, ...]
    claims: tuple[Found, ...]
    namespaces: tuple[str, ...]
    data: bool

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take away."""
        return not (self.objects or (self.data and (self.claims or self.namespaces)))

    def question(self, context: str) -> str:
        """What a person is asked before."""
        where = ", ".join(sorted({each.key.namespace for each in (*self.objects, *self.claims)} | set(self.namespaces)))
        if self.data:
            more = f", {len(self.claims)} disks with all their data, and the namespaces with all that is in them"
        else:
            more = f" (the data of {len(self.claims)} disks stays)" if self.claims else ""
        return f"Delete {len(self.objects)} objects in {where} of {context}{more}?"


def find(api: Api, manifests: Sequence[Manifest], *, data: bool) -> Removal:
    """What of a deployment is there: all that has its label, whatever version of the overlay it came from.

    Args:
        api: of the cluster.
        manifests: the overlay's objects, which say where to look and what the brokers' disks are called.
        data: whether the brokers' disks and the namespaces go too.

    Raises:
        ClusterError: there is something, and a right to delete it is missing; the message names verb and resource.
    """
    apart = {(each.api_version, each.kind) for each in (NAMESPACES, CLAIMS)}
    kinds = sorted({*KINDS, *map(kind_of, manifests)} - apart)
    objects, claims, spaces = [], [], []
    for namespace in namespaces(manifests):
        live = api.get(NAMESPACES, "", namespace)
        if live is None:
            continue
        spaces += [namespace] if ours(live) else []
        objects += [Found(resource, key(each), step(each)) for resource, each in parts(api, namespace, kinds)]
        prefixes = _disks([each for each in manifests if key(each).namespace == namespace])
        claims += [
            Found(CLAIMS, key(each), REST_STEP)
            for each in api.listed(CLAIMS, namespace).items
            if key(each).name.startswith(prefixes) or ours(each)
        ]
    objects.sort(key=lambda each: (-each.step, each.key))
    removal = Removal(tuple(objects), tuple(claims), tuple(spaces), data)
    going = [(each.resource, each.key.namespace) for each in (*objects, *(claims if data else ()))]
    going += [(NAMESPACES, "") for _ in spaces if data]
    demand(api, to_delete(going, {each.key.namespace for each in objects}))
    return removal


def delete(
    api: Api,
    removal: Removal,
    say: Callable[[str], None],
    *,
    timeout_s: float = 600.0,
    clock: Time | None = None,
) -> None:
    """Take it all away and wait until nothing of it is left.

    Tiers go first, and have ended before their brokers do: they settle what they have.

    Raises:
        ClusterError: something may not be deleted, or does not go; the message says what is left.
    """
    clock = clock or Time()
    deadline_s = clock.now() + timeout_s
    spaces = sorted({each.key.namespace for each in removal.objects})
    early = [each for each in removal.objects if each.step >= TIERS_STEP]
    late = [each for each in removal.objects if each.step < TIERS_STEP]
    try:
        for group in (early, late):
            for each in group:
                api.delete(each.resource, each.key.namespace, each.key.name)
            _until(api, group, spaces, clock, deadline_s, brokers_too=group is late)
            for each in group:
                say(f"deleted {each.key}")
        if removal.data:
            for each in removal.claims:
                api.delete(CLAIMS, each.key.namespace, each.key.name)
                say(f"deleted {each.key}")
            for name in removal.namespaces:
                api.delete(NAMESPACES, "", name)
            gone = [Found(NAMESPACES, Key("", "Namespace", name, "v1"), 0) for name in removal.namespaces]
            _until(api, [*removal.claims, *gone], [], clock, deadline_s, brokers_too=True)
            for name in removal.namespaces:
                say(f"deleted Namespace {name}")
    except ClusterError as error:
        raise ClusterError(f"{error}; what was deleted is gone, and the same command goes on from there") from error


def _disks(manifests: Sequence[Manifest]) -> tuple[str, ...]:
    """How the names of the claims begin that the brokers' StatefulSets make: TEMPLATE-SET-ORDINAL."""
    return tuple(
        f"{claim['metadata']['name']}-{key(each).name}-"
        for each in brokers(manifests)
        for claim in each["spec"].get("volumeClaimTemplates") or []
    )


def _until(
    api: Api, group: Sequence[Found], spaces: Sequence[str], clock: Time, deadline_s: float, *, brokers_too: bool
) -> None:
    """Wait until objects and the pods that were theirs are gone."""
    while True:
        left = [
            str(each.key) for each in group if api.get(each.resource, each.key.namespace, each.key.name) is not None
        ]
        for space in spaces:
            pods = api.listed(PODS, space, SELECTED).items
            left += [str(key(pod)) for pod in pods if brokers_too or _of_early(pod)]
        if not left:
            return
        if clock.now() > deadline_s:
            raise ClusterError(f"not gone in time: {', '.join(left[:5])}{' ...' if len(left) > 5 else ''}")
        clock.sleep(LOOK_S / 4)


def _of_early(pod: Manifest) -> bool:
    """Whether a pod is a tier's or a device's."""
    return component(pod) not in (KAFKA, TOPICS)
