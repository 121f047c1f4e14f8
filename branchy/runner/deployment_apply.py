"""`branchy deploy apply`: objects applied part by part, each waited for before what needs it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from branchy.cluster.api import EVENTS, JOBS, PODS, STATEFUL_SETS, Api, Listing
from branchy.cluster.changes import Action, Planned, live_choices
from branchy.cluster.objects import (
    BROKERS_STEP,
    NAMESPACE_STEP,
    TIERS_STEP,
    TOPICS_STEP,
    Key,
    Manifest,
    component,
    key,
    step,
)
from branchy.cluster.progress import Phase, Trouble, is_ready, last_warning, pods_of, progress, trouble
from branchy.errors import ClusterError
from branchy.runner.deployment import SELECTED, kind_of, known_resources
from branchy.runner.deployment_plan import Plan, make_plan

LOOK_S = 2
"""How often to look how far a part is, where nothing tells of a change."""
LAST_LINES = 5
"""Of a container that ended with an error."""
WAITED_FOR = (BROKERS_STEP, TOPICS_STEP, TIERS_STEP)


@dataclass(frozen=True, slots=True)
class Time:
    """Where time comes from: `now` and `sleep`, in seconds."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def apply(
    api: Api,
    manifests: Sequence[Manifest],
    say: Callable[[str], None],
    *,
    force: bool = False,
    timeout_s: float = 600.0,
    clock: Time | None = None,
) -> Plan:
    """Apply objects in the order of what needs what, and wait until all of it runs.

    Nothing is applied unless the API server would take all of it.

    Args:
        api: of the cluster.
        manifests: the objects, in order.
        say: takes a line for a person whenever something has come of it.
        force: take over fields that others have set to something else.
        timeout_s: how long each part may take until it is ready.
        clock: where time comes from.

    Returns:
        What was to do.

    Raises:
        ClusterError: something is refused, or a part does not get ready; the message says what stands.
    """
    plan = make_plan(api, manifests, force=force)
    applying = _Applying(api, manifests, say, force, timeout_s, clock or Time())
    try:
        if plan.new_namespaces:
            applying.do(plan.steps, NAMESPACE_STEP)
            # Only now can the server look at what goes into them: before any of it is applied.
            checked = make_plan(api, manifests, force=force, rights=False)
            applying.finish(checked.steps)
        else:
            applying.finish(plan.steps)
    except ClusterError as error:
        raise ClusterError(f"{error}; {applying.stands()}") from error
    return plan


@dataclass
class _Applying:
    api: Api
    manifests: Sequence[Manifest]
    say: Callable[[str], None]
    force: bool
    timeout_s: float
    clock: Time
    done: list[Key] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.resources = known_resources(self.api, self.manifests)
        self.by_key = {key(each): each for each in self.manifests}

    def finish(self, steps: Sequence[Planned]) -> None:
        """Everything, part after part."""
        for number in sorted({step(each) for each in self.manifests}):
            self.do(steps, number)
            if number in WAITED_FOR:
                self._wait([key(each) for each in self.manifests if step(each) == number])
        for each in steps:
            if each.action is Action.REMOVE:
                self._remove(each.key)

    def do(self, steps: Iterable[Planned], number: int) -> None:
        """Apply the objects of one step."""
        for each in steps:
            manifest = self.by_key.get(each.key)
            if manifest is not None and step(manifest) == number and each.action is not Action.KEEP:
                self._apply(manifest, each.action)

    def stands(self) -> str:
        """What an error half-way leaves behind, and how to go on."""
        if not self.done:
            return "nothing was applied"
        return f"objects applied so far: {len(self.done)}; they stay, and the same command goes on from there"

    def _apply(self, manifest: Manifest, action: Action) -> None:
        own, resource = key(manifest), self.resources[kind_of(manifest)]
        if action is Action.REPLACE:
            self.api.delete(resource, own.namespace, own.name)
            self._until_gone(own)
        else:
            live = self.api.get(resource, own.namespace, own.name)
            manifest = live_choices(manifest, live) if live is not None else manifest
        try:
            self.api.apply(resource, manifest, force=self.force)
        except ClusterError as error:
            raise ClusterError(f"{own}: {error}") from error
        self.done.append(own)
        self.say(f"{_PAST[action]} {own}")

    def _remove(self, own: Key) -> None:
        resource = self.api.resource(own.api_version, own.kind)
        if resource is not None:
            self.api.delete(resource, own.namespace, own.name)
            self.say(f"{_PAST[Action.REMOVE]} {own}")

    def _until_gone(self, own: Key) -> None:
        resource, deadline_s = self.resources[own.api_version, own.kind], self.clock.now() + self.timeout_s
        while self.api.get(resource, own.namespace, own.name) is not None:
            if self.clock.now() > deadline_s:
                raise ClusterError(f"{own} is not gone after {self.timeout_s:g} s")
            self.clock.sleep(LOOK_S / 4)

    def _wait(self, parts: Sequence[Key]) -> None:
        deadline_s = self.clock.now() + self.timeout_s
        told: set[str] = set()
        for _ in itertools.count():
            waiting, troubles, since = [], [], Listing([], "")
            for own in parts:
                found = self._look(own, told)
                if found is not None:
                    waiting.append((own, found.line))
                    troubles += [str(each) for each in found.troubles]
                    since, namespace = found.pods, own.namespace
            if not waiting:
                return
            if self.clock.now() > deadline_s:
                parts_text = ", ".join(f"{own} ({line})" for own, line in waiting)
                why = f": {'; '.join(troubles[:3])}" if troubles else ""
                raise ClusterError(f"not ready within {self.timeout_s:g} s: {parts_text}{why}")
            if not self.api.wait_for_change(PODS, namespace, since, LOOK_S):
                self.clock.sleep(LOOK_S)

    def _look(self, own: Key, told: set[str]) -> _Waiting | None:
        """How far one part is, told where that is news; None once it is done."""
        resource = STATEFUL_SETS if own.kind == "StatefulSet" else JOBS
        live = self.api.get(resource, own.namespace, own.name)
        if live is None:
            raise ClusterError(f"{own} is gone: somebody has deleted it")
        found = progress(live)
        self._tell(f"{component(live) or own.name}: {found.line}", told)
        if found.phase is Phase.DONE:
            return None
        pods = self.api.listed(PODS, own.namespace, SELECTED)
        mine = pods_of(live, pods.items)
        troubles = [each for pod in mine if (each := trouble(pod)) is not None]
        for each in troubles:
            self._explain(own, each, told)
        if not all(is_ready(pod) for pod in mine) or not mine:
            warning = last_warning(live, self.api.listed(EVENTS, own.namespace, fields="type=Warning").items)
            if warning and not mine:
                troubles.append(Trouble(own.name, warning))
                self._tell(f"{component(live) or own.name}: {warning}", told)
        if found.phase is Phase.FAILED:
            why = "".join(f"; {each}" for each in troubles)
            raise ClusterError(f"{own} {found.line}{why}; branchy deploy logs {component(live)} shows what it wrote")
        return _Waiting(found.line, troubles, pods)

    def _explain(self, own: Key, found: Trouble, told: set[str]) -> None:
        """Say why a pod is not ready, with the last lines of a container that ended."""
        if f"  {found}" in told:
            return
        self._tell(f"  {found}", told)
        if found.container:
            try:
                lines = self.api.log(own.namespace, found.pod, found.container, tail=LAST_LINES, previous=True)
            except ClusterError:
                lines = self._current_log(own.namespace, found)
            for line in lines:
                self.say(f"    {line}")

    def _current_log(self, namespace: str, found: Trouble) -> list[str]:
        """Of a container that has not been started anew yet."""
        try:
            return self.api.log(namespace, found.pod, found.container, tail=LAST_LINES)
        except ClusterError as error:
            return [f"(its log cannot be read: {error})"]

    def _tell(self, line: str, told: set[str]) -> None:
        if line not in told:
            told.add(line)
            self.say(line)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A part that is not ready: how far it is, what is wrong with its pods, and all pods at that moment."""

    line: str
    troubles: list[Trouble]
    pods: Listing


_PAST = {
    Action.CREATE: "created",
    Action.CHANGE: "changed",
    Action.REPLACE: "replaced",
    Action.REMOVE: "removed",
}
