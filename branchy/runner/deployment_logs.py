"""`branchy deploy logs`: what the pods of a part write."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence

from branchy.cluster.api import JOBS, PODS, STATEFUL_SETS, Api
from branchy.cluster.objects import Manifest, component, key
from branchy.cluster.progress import pods_of
from branchy.errors import ClusterError, UsageError
from branchy.runner.deployment import SELECTED

RUNS = {"StatefulSet": STATEFUL_SETS, "Job": JOBS}
"""What makes pods, and how it is asked for."""


def logs(api: Api, manifests: Sequence[Manifest], part: str, *, tail: int, follow: bool) -> Iterator[str]:
    """What the pods of a part write.

    Args:
        api: of the cluster.
        manifests: the overlay's objects.
        part: a tier's name, `kafka`, `topics` or `device`.
        tail: how many of each pod's last lines.
        follow: go on with what they write, of all pods at once, until they end.

    Yields:
        Lines, each with its pod's name in front where there are several.

    Raises:
        UsageError: the overlay has no such part.
        ClusterError: it has no pods, or none may be read.
    """
    running = [each for each in manifests if each["kind"] in RUNS]
    where = [key(each) for each in running if component(each) == part]
    if not where:
        raise UsageError(f"{part}: expected one of {', '.join(sorted({component(each) for each in running}))}")
    found: list[Manifest] = []
    for own in where:
        live = api.get(RUNS[own.kind], own.namespace, own.name)
        found += pods_of(live, api.listed(PODS, own.namespace, SELECTED).items) if live is not None else []
    if not found:
        raise ClusterError(f"{part} has no pods in {', '.join(own.namespace for own in where)}: nothing has run yet")
    if follow:
        yield from _followed(api, found, tail)
        return
    for pod in found:
        try:
            lines = api.log(key(pod).namespace, key(pod).name, _container(pod), tail=tail)
        except ClusterError as error:
            lines = [f"(its log cannot be read: {error})"]
        yield from (_marked(pod, line, found) for line in lines)


def _container(pod: Manifest) -> str:
    return str(pod["spec"]["containers"][0]["name"])


def _marked(pod: Manifest, line: str, pods: Sequence[Manifest]) -> str:
    return f"{key(pod).name}: {line}" if len(pods) > 1 else line


def _followed(api: Api, pods: Sequence[Manifest], tail: int) -> Iterator[str]:
    """The lines of all pods as they come, each pod's by a thread of its own."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def follow(pod: Manifest) -> None:
        try:
            for line in api.follow(key(pod).namespace, key(pod).name, _container(pod), tail=tail):
                lines.put(_marked(pod, line, pods))
        except (ClusterError, ConnectionError) as error:
            lines.put(_marked(pod, f"(no more can be read: {error})", pods))
        finally:
            lines.put(None)

    for pod in pods:
        threading.Thread(target=follow, args=(pod,), name=f"logs of {key(pod).name}", daemon=True).start()
    ended = 0
    while ended < len(pods):
        line = lines.get()
        if line is None:
            ended += 1
        else:
            yield line
