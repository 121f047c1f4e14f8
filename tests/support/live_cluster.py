"""A cluster that tests may deploy to: reached through kubectl, looked at, waited for."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from manifests import Manifest

CONTEXT = "K8S_TEST_CONTEXT"
"""The variable that has to name the context, so that no cluster is changed because it happens to be the current one."""

NAMESPACES = ("branchy", "branchy-edge", "branchy-cloud")
NODES = 6
"""Three for the edge's brokers, which keep apart, and three for the cloud's."""

WAIT_S = 120.0
_AUTOMATIC = {("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")}
"""What every namespace has."""


class NoClusterError(Exception):
    """There is no cluster that may be changed; says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster, as its kubeconfig's context has it."""

    kubectl: str
    context: str

    def run(self, *words: str, stdin: str | None = None, timeout_s: float = WAIT_S) -> str:
        """What kubectl answers; an error is one of the test's."""
        line = [self.kubectl, "--context", self.context, *words]
        done = subprocess.run(line, input=stdin, capture_output=True, text=True, timeout=timeout_s)
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
        return done.stdout

    def listed(self, *words: str, stdin: str | None = None) -> list[Manifest]:
        """Objects that `kubectl get` finds."""
        found = json.loads(self.run("get", *words, "--ignore-not-found", "-o", "json", stdin=stdin) or '{"items": []}')
        return list(found["items"]) if "items" in found else [found]

    def live(self, manifests: Sequence[Manifest]) -> dict[str, Manifest]:
        """The objects as the cluster has them, by namespace, kind and name."""
        found = self.listed("-f", "-", stdin=yaml.safe_dump_all(manifests))
        return {str(label(each)): each for each in found}

    def left(self, namespace: str) -> set[tuple[str, str]]:
        """Kind and name of all that a namespace has of somebody's making, but what only tells what happened."""
        if not self.listed("namespace", namespace):
            return set()
        kinds = self.run("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
        told = {"events", "events.events.k8s.io"}
        found = {label(each)[1:] for each in self.listed("-n", namespace, ",".join(k for k in kinds if k not in told))}
        return found - _AUTOMATIC

    def wait_running(self, manifests: Sequence[Manifest]) -> list[Manifest]:
        """The pods of these objects, once every one runs or, of a job, has ended."""
        expected = 0
        for manifest in manifests:
            namespace, kind, name = label(manifest)
            if kind == "StatefulSet":
                status = ["rollout", "status", f"statefulset/{name}", f"--timeout={WAIT_S:g}s"]
                self.run("-n", namespace, *status, timeout_s=WAIT_S + 10)
                expected += self.listed("-n", namespace, "statefulset", name)[0]["spec"]["replicas"]
            elif kind == "Job" and not manifest["spec"].get("suspend"):
                done = ["wait", f"job/{name}", "--for=condition=complete", f"--timeout={WAIT_S:g}s"]
                self.run("-n", namespace, *done, timeout_s=WAIT_S + 10)
                expected += 1
        spaces = namespaces(manifests)
        until(lambda: all(well(pod) for pod in self.pods(spaces)), "all pods run", lambda: self.pods_said(spaces))
        found = self.pods(spaces)
        assert len(found) == expected, self.pods_said(spaces)
        return found

    def pods(self, spaces: Sequence[str]) -> list[Manifest]:
        """All pods of some namespaces."""
        return [pod for namespace in spaces for pod in self.listed("-n", namespace, "pods")]

    def pods_said(self, spaces: Sequence[str]) -> str:
        """The same for a person."""
        return "\n".join(self.run("-n", namespace, "get", "pods", "-o", "wide") for namespace in spaces)


def find_cluster(environment: Mapping[str, str]) -> Cluster:
    """The cluster that the environment names twice: `KUBECONFIG` has its address, `K8S_TEST_CONTEXT` its context.

    Raises:
        NoClusterError: one of the two is missing, they differ, or the cluster is not empty or large enough.
    """
    kubectl = shutil.which("kubectl", path=environment.get("PATH"))
    if kubectl is None:
        raise NoClusterError("expected kubectl on the path, found none")
    named = environment.get(CONTEXT)
    if not environment.get("KUBECONFIG") or not named:
        raise NoClusterError(f"expected KUBECONFIG, and in {CONTEXT} its current context: the cluster to be changed")
    line = [kubectl, "config", "current-context"]
    current = subprocess.run(line, env=dict(environment), capture_output=True, text=True, timeout=WAIT_S).stdout.strip()
    if current != named:
        raise NoClusterError(f"expected the current context of KUBECONFIG in {CONTEXT}, {current!r}, found {named!r}")
    cluster = Cluster(kubectl, named)
    taken = {each["metadata"]["name"] for each in cluster.listed("namespaces")} & set(NAMESPACES)
    if taken:
        raise NoClusterError(f"expected no namespace {' or '.join(sorted(taken))}: what is in it would be deleted")
    nodes = len(cluster.listed("nodes"))
    if nodes < NODES:
        raise NoClusterError(f"expected {NODES} nodes, three of them to be the edge's, found {nodes}")
    return cluster


def label(manifest: Manifest) -> tuple[str, str, str]:
    """Namespace, kind and name."""
    meta = manifest["metadata"]
    return meta.get("namespace", ""), manifest["kind"], meta["name"]


def namespaces(manifests: Sequence[Manifest]) -> list[str]:
    """Those that the objects are in."""
    return sorted({label(each)[0] for each in manifests} - {""})


def well(pod: Manifest) -> bool:
    """Whether a pod is ready and stays, or has done its work."""
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
    return pod["status"].get("phase") == "Succeeded" or (ready and "deletionTimestamp" not in pod["metadata"])


def until(holds: Callable[[], bool], what: str, seen: Callable[[], object] | None = None) -> None:
    """Look again and again until it holds; a test's error, with what is seen, if it does not come to."""
    deadline_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline_s, f"not within {WAIT_S:g} s: {what}; {seen() if seen else ''}"
        time.sleep(0.1)


class Availability:
    """How many pods of each StatefulSet were there at least, while a watch looked on.

    A fake kubelet (kwok 0.8) deletes a pod that has ended by its name, without its uid, at times twice: the second
    one hits the new pod of that name. It can be told apart: controllers, evictions and kubectl give a pod its time
    to end. A pod that came meanwhile and was deleted without any counts as it was until the next of its name is well.
    """

    def __init__(self, notes: Path, expected: set[str]) -> None:
        self._notes, self._expected = notes, expected
        until(lambda: self._expected <= set(self._last()), "the watch sees the pods that are there")

    def lowest(self, now: set[str]) -> dict[str, int]:
        """The least of each set since the start, once the watch has come to these pods, by their uids."""
        until(lambda: {uid for uid, pod in self._last().items() if well(pod)} >= now, "the watch sees the new pods")
        lows: dict[str, int] = {}
        for pods in self._history():
            if self._expected <= set(pods) or lows:  # from when all that were there had been told of
                sets = [pod["metadata"]["ownerReferences"][0] for pod in pods.values() if well(pod)]
                names = [owner["name"] for owner in sets if owner["kind"] == "StatefulSet"]
                for name in {*names, *lows}:
                    lows[name] = min(lows.get(name, names.count(name)), names.count(name))
        return lows

    def _last(self) -> dict[str, Manifest]:
        return next(iter(deque(self._history(), maxlen=1)), {})

    def _history(self) -> Iterator[dict[str, Manifest]]:
        text, position, pods = self._notes.read_text(encoding="utf-8"), 0, dict[str, Manifest]()
        cut_short: set[str] = set()
        while position < len(text.rstrip()):
            try:
                event, position = json.JSONDecoder().raw_decode(text, position)
            except json.JSONDecodeError:
                return  # the rest is still being written
            position += len(text[position:]) - len(text[position:].lstrip())
            pod, gone = event["object"], event["type"] == "DELETED"
            uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
            if uid in cut_short or self._is_cut_short(pods.get(uid), pod, gone):
                cut_short.add(uid)
            elif gone:
                pods.pop(uid, None)
            else:
                pods[uid] = pod
                if well(pod):
                    pods = {u: p for u, p in pods.items() if not (u in cut_short and p["metadata"]["name"] == name)}
            yield dict(pods)

    def _is_cut_short(self, before: Manifest | None, pod: Manifest, gone: bool) -> bool:
        """Whether a pod that came meanwhile is deleted without any time to end."""
        meta = pod["metadata"]
        if before is None or meta["uid"] in self._expected or "deletionTimestamp" in before["metadata"]:
            return False
        return gone or meta.get("deletionGracePeriodSeconds") == 0


@contextmanager
def watched(cluster: Cluster, namespace: str, notes: Path) -> Iterator[Availability]:
    """Look at a namespace's pods for as long as the block takes."""
    words = ["get", "pods", "--watch", "--output-watch-events", "-o", "json"]
    line = [cluster.kubectl, "--context", cluster.context, "-n", namespace, *words]
    there = {pod["metadata"]["uid"] for pod in cluster.pods([namespace])}
    with notes.open("w") as out, subprocess.Popen(line, stdout=out) as process:
        try:
            yield Availability(notes, there)
        finally:
            process.terminate()
