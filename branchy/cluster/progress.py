"""How far a part of a deployment is, and why a pod is not ready: read from what the API server tells of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from branchy.cluster.objects import Manifest, key


class Phase(Enum):
    """Of a part that is waited for."""

    WAITS = auto()
    DONE = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a part is, with one line for a person."""

    phase: Phase
    line: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a pod is not ready.

    Attributes:
        pod: its name.
        reason: Kubernetes' own word, such as `ImagePullBackOff`.
        message: what it says about it; may be empty.
        container: the one that ended with an error, whose last lines tell more; empty where none did.
    """

    pod: str
    reason: str
    message: str = ""
    container: str = ""

    def __str__(self) -> str:
        more = f": {self.message}" if self.message else ""
        return f"{self.pod}: {self.reason}{more}"


def progress(live: Manifest) -> Progress:
    """How far a StatefulSet or a Job is; anything else is done once it is there."""
    return {"StatefulSet": _of_set, "Job": _of_job}.get(live["kind"], lambda _: Progress(Phase.DONE, "is there"))(live)


def _of_set(live: Manifest) -> Progress:
    status, wanted = live.get("status") or {}, live["spec"].get("replicas", 1)
    # A status of before the last change says nothing of what comes of it.
    seen = status.get("observedGeneration", 0) >= live["metadata"].get("generation", 0)
    ready = status.get("readyReplicas", 0) if seen else 0
    new = status.get("updatedReplicas", 0) if seen else 0
    if status.get("currentRevision") == status.get("updateRevision"):
        new = max(new, status.get("currentReplicas", 0) if seen else 0)
    line = f"{ready} of {wanted} ready" + (f", {new} of {wanted} are new" if new < wanted <= ready else "")
    gone = status.get("replicas", 0) <= wanted
    return Progress(Phase.DONE if seen and gone and ready >= wanted and new >= wanted else Phase.WAITS, line)


def _of_job(live: Manifest) -> Progress:
    for condition in (live.get("status") or {}).get("conditions") or []:
        if condition.get("status") == "True" and condition.get("type") in ("Complete", "Failed"):
            if condition["type"] == "Complete":
                return Progress(Phase.DONE, "complete")
            why = condition.get("message") or condition.get("reason") or "no reason given"
            return Progress(Phase.FAILED, f"failed: {why}")
    if live["spec"].get("suspend"):
        return Progress(Phase.DONE, "waits until it is started")
    return Progress(Phase.WAITS, "runs" if (live.get("status") or {}).get("active") else "not started yet")


def pods_of(live: Manifest, pods: Iterable[Manifest]) -> list[Manifest]:
    """The pods that an object owns, by name."""
    uid = live["metadata"].get("uid")
    mine = [p for p in pods if any(o.get("uid") == uid for o in p["metadata"].get("ownerReferences") or [])]
    return sorted(mine, key=lambda pod: (len(key(pod).name), key(pod).name))


def is_ready(pod: Manifest) -> bool:
    """Whether a pod takes work."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def trouble(pod: Manifest) -> Trouble | None:
    """Why a pod is not ready; None where it is, or only needs its time."""
    name, status = key(pod).name, pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp") or is_ready(pod) or status.get("phase") == "Succeeded":
        return None
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Trouble(name, condition.get("reason", "not scheduled"), _line(condition.get("message")))
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        if (found := _of_container(name, container)) is not None:
            return found
    if status.get("phase") == "Failed":
        return Trouble(name, status.get("reason", "Failed"), _line(status.get("message")))
    return None


def _of_container(pod: str, container: Manifest) -> Trouble | None:
    state = container.get("state") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    last = (container.get("lastState") or {}).get("terminated") or {}
    if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
        crashed = container["name"] if last or waiting["reason"] == "CrashLoopBackOff" else ""
        message = _line(waiting.get("message")) + (f" ({_ending(last)})" if last else "")
        return Trouble(pod, waiting["reason"], message.strip(), crashed)
    if ended.get("exitCode"):
        return Trouble(pod, ended.get("reason", "Error"), _ending(ended), container["name"])
    return None


def _ending(terminated: Manifest) -> str:
    why = f", {terminated['reason']}" if terminated.get("reason") not in (None, "Error") else ""
    return f"ended with exit code {terminated.get('exitCode', '?')}{why}"


def last_warning(live: Manifest, events: Sequence[Manifest]) -> str:
    """The last thing that Kubernetes warned of about an object; empty where there is none."""
    uid = live["metadata"].get("uid")
    mine = [e for e in events if (e.get("involvedObject") or {}).get("uid") == uid and e.get("type") == "Warning"]
    if not mine:
        return ""
    newest = max(mine, key=lambda e: e.get("lastTimestamp") or e.get("eventTime") or "")
    return f"{newest.get('reason', '')}: {_line(newest.get('message'))}"


def _line(text: str | None) -> str:
    """Text of the cluster's in one line that can be read."""
    line = " ".join((text or "").split())
    return line if len(line) <= 300 else f"{line[:299]}…"
