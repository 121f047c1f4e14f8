"""`branchy deploy plan`: what applying would change, by asking the API server to try; nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from branchy.cluster.api import NAMESPACES, Api, Resource
from branchy.cluster.changes import Action, Planned, changes, declared_changes, live_choices
from branchy.cluster.objects import MANAGED_BY, MANAGER, Key, Manifest, key, labels, namespaces, of_kind, ours
from branchy.cluster.session import ApiError
from branchy.errors import ClusterError
from branchy.runner.deployment import SELECTED, kind_of, known_resources, parts, refuse
from branchy.runner.deployment_disks import disks_without_users
from branchy.runner.deployment_rights import demand, to_apply, to_take_away


@dataclass(frozen=True, slots=True)
class Plan:
    """What applying would do.

    Attributes:
        steps: one an object, in the order in which they are applied; what is removed comes last.
        new_namespaces: those that are not there yet, and in which the server can check nothing.
    """

    steps: tuple[Planned, ...]
    new_namespaces: frozenset[str]

    @property
    def changes_nothing(self) -> bool:
        """Whether all is as it is to be."""
        return all(step.action is Action.KEEP for step in self.steps)

    def lines(self) -> Iterator[str]:
        """What would change, an object a line and a field a line below it; then how many objects there are of each."""
        for step in self.steps:
            if step.action is not Action.KEEP:
                yield f"{step.action:<9} {step.key}{'' if step.checked else ' (not checked by the server yet)'}"
                yield from (f"            {change}" for change in step.changes)
        counted = {a: sum(step.action is a for step in self.steps) for a in Action}
        yield ", ".join(f"{n} {action}" for action, n in counted.items() if n or action is Action.KEEP)


def make_plan(api: Api, manifests: Sequence[Manifest], *, force: bool = False, rights: bool = True) -> Plan:
    """Ask the API server what applying these objects would change; nothing is.

    Args:
        api: asked.
        manifests: the objects, in order.
        force: as they are going to be applied.
        rights: look first whether who asks may do all that it takes.

    Raises:
        ClusterError: a kind is not known, a namespace is being deleted, a name is taken, a right is missing, the
            brokers' disks have no users, a field is unknown, cannot be changed or is somebody else's; the message
            says which.
    """
    resources = known_resources(api, manifests)
    new = _namespaces(api, manifests)
    if rights:
        demand(api, to_apply(api, manifests, resources))
    refuse(list(disks_without_users(api, manifests)), ClusterError)
    found = [_outcome(api, each, resources[kind_of(each)], new, force) for each in manifests]
    refuse([each for each in found if isinstance(each, str)], ClusterError)
    steps = [*(each for each in found if isinstance(each, Planned)), *_left_over(api, manifests, new)]
    if rights:
        demand(api, to_take_away(api, steps))
    return Plan(tuple(steps), frozenset(new))


def _namespaces(api: Api, manifests: Sequence[Manifest]) -> set[str]:
    """The namespaces that are not there yet."""
    made = {key(each).name for each in of_kind(manifests, "Namespace")}
    new = set()
    for name in namespaces(manifests):
        live = api.get(NAMESPACES, "", name)
        if live is None:
            if name not in made:
                raise ClusterError(f"namespace {name}: expected one, found none: kubectl create namespace {name}")
            new.add(name)
        elif (live.get("status") or {}).get("phase") == "Terminating":
            raise ClusterError(
                f"namespace {name} is being deleted: wait until it is gone (kubectl get namespace {name} -o yaml says "
                "what it waits for), or choose another --namespace"
            )
    return new


def _outcome(api: Api, manifest: Manifest, resource: Resource, new: set[str], force: bool) -> Planned | str:
    """What applying one object would do; or why it cannot be."""
    own = key(manifest)
    if own.namespace in new:
        return Planned(own, Action.CREATE, checked=False)
    live = api.get(resource, own.namespace, own.name)
    if live is not None and not ours(live):
        return (
            f"{own} is there already, and not branchy's (it has no label {SELECTED}): "
            "choose another --namespace, or give it the label if it may be changed"
        )
    try:
        wanted = manifest if live is None else live_choices(manifest, live)
        after = api.apply(resource, wanted, dry_run=True, force=force)
    except ApiError as error:
        if live is not None and own.kind == "Job" and _immutable(error):
            return Planned(own, Action.REPLACE, declared_changes(live, manifest))
        return _refusal(own, error)
    if live is None:
        return Planned(own, Action.CREATE)
    found = changes(live, after)
    return Planned(own, Action.CHANGE if found else Action.KEEP, found)


def _immutable(error: ApiError) -> bool:
    """Whether a refusal is because a field cannot be changed once it is there."""
    if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
        return False
    words = [cause.message for cause in error.causes] or [error.message]
    return all("immutable" in each or "updates to statefulset spec" in each for each in words)


def _refusal(own: Key, error: ApiError) -> str:
    if error.status == HTTPStatus.CONFLICT and error.causes:
        fields = ", ".join(f"{cause.field} ({cause.message})" for cause in error.causes[:5])
        return f"{own}: others have set what would be changed: {fields}; --force-conflicts takes it over"
    if _immutable(error):
        fields = ", ".join(cause.field for cause in error.causes) or "a field"
        why = error.causes[-1].message if error.causes else str(error)
        return (
            f"{own}: {fields} cannot be changed once it is there ({why[:200]}); "
            "delete it first (branchy deploy delete keeps the data)"
        )
    return f"{own}: {error}"


def _left_over(api: Api, manifests: Sequence[Manifest], new: set[str]) -> Iterator[Planned]:
    """What was applied before and is in the overlay no more, such as settings of an older version."""
    wanted = {key(each) for each in manifests}
    for namespace in namespaces(manifests):
        if namespace not in new:
            for _, live in parts(api, namespace):
                if labels(live).get(MANAGED_BY) == MANAGER and key(live) not in wanted:
                    yield Planned(key(live), Action.REMOVE)
