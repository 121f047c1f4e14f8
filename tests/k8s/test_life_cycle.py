"""Every overlay on a real API server, from the first apply to the last delete."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import yaml
from deploy_ways import Deploy, Way
from live_cluster import Cluster, label, namespaces, until, watched
from manifests import OF_VOLUME, OVERLAYS, Manifest, named, render

pytestmark = pytest.mark.timeout(600)

SERVERS_OWN = ("resourceVersion", "managedFields")
IMAGES = ("branchy-edge", "branchy-cloud", "branchy-train")
ANOTHER = "another-bundle"


class Clock:
    """How long each part takes, as words."""

    def __init__(self) -> None:
        self._last_s = time.monotonic()

    def lap(self) -> str:
        before_s, self._last_s = self._last_s, time.monotonic()
        return f"{self._last_s - before_s:.1f}"


def asked_for(live: dict[str, Manifest]) -> dict[str, Manifest]:
    """What somebody wants of each object: no status, and nothing that the server notes with it."""
    return {
        name: {key: value for key, value in manifest.items() if key not in ("status", "metadata")}
        | {"metadata": {k: v for k, v in manifest["metadata"].items() if k not in SERVERS_OWN}}
        for name, manifest in live.items()
    }


def versions(live: dict[str, Manifest]) -> dict[str, tuple[str, int | None]]:
    return {n: (m["metadata"]["resourceVersion"], m["metadata"].get("generation")) for n, m in live.items()}


def assert_selectors_find_their_pods(cluster: Cluster, manifests: Sequence[Manifest]) -> None:
    """Those of a StatefulSet's budget and Service: one of its pods may be away, and all have names."""
    for each in manifests:
        namespace, kind, name = label(each)
        if kind != "StatefulSet":
            continue
        size = cluster.listed("-n", namespace, "statefulset", name)[0]["spec"]["replicas"]
        budget = partial(cluster.listed, "-n", namespace, "poddisruptionbudget", name)
        expected = {"currentHealthy": size, "expectedPods": size, "desiredHealthy": size - 1, "disruptionsAllowed": 1}
        until(lambda get=budget, wanted=expected: get()[0]["status"].items() >= wanted.items(), str(expected), budget)
        slices = partial(cluster.listed, "-n", namespace, "endpointslice", f"-l=kubernetes.io/service-name={name}")
        until(
            lambda get=slices, size=size: sum(len(s["endpoints"]) for s in get()) == size, f"{size} of {name}", slices
        )


def assert_changes_nothing(cluster: Cluster, manifests: Sequence[Manifest], act: Callable[[], object]) -> None:
    """Objects keep their versions. Controllers that note a status just then are given another chance, spec has none."""
    for _ in range(5):
        before = cluster.live(manifests)
        act()
        after = cluster.live(manifests)
        assert asked_for(after) == asked_for(before)
        if versions(after) == versions(before):
            return
    pytest.fail("applied again, objects have other versions each time")


def write_changed(k8s: Path, overlay: str, manifests: Sequence[Manifest]) -> None:
    """The overlay `changed`: with another bundle's images, and another setting of the edge."""
    settings = named(list(manifests), "ConfigMap", "edge-settings")["metadata"]
    edge = {"name": "edge-settings", "namespace": settings["namespace"], "behavior": "merge"}
    own = {
        "resources": [f"../../{overlay}"],
        "images": [{"name": name, "newTag": ANOTHER} for name in IMAGES],
        "configMapGenerator": [{**edge, "literals": ["BRANCHY_CONNECT_TIMEOUT_S=90"]}],
    }
    (k8s / "overlays" / "changed").mkdir(exist_ok=True)
    (k8s / "overlays" / "changed" / "kustomization.yaml").write_text(yaml.safe_dump(own))


def by_set(pods: Sequence[Manifest]) -> dict[str, set[str]]:
    """The uids of each StatefulSet's pods."""
    found: dict[str, set[str]] = {}
    for pod in pods:
        owner = pod["metadata"]["ownerReferences"][0]
        if owner["kind"] == "StatefulSet":
            found.setdefault(f"{pod['metadata']['namespace']}/{owner['name']}", set()).add(pod["metadata"]["uid"])
    return found


def named_in_plan(manifests: Sequence[Manifest]) -> set[str]:
    """Objects as `branchy deploy plan` calls them."""
    parts = [label(each) for each in manifests]
    return {f"{kind} {name}" + (f" in {namespace}" if namespace else "") for namespace, kind, name in parts}


def assert_planned(way: Deploy, overlay: str, **expected: set[str]) -> None:
    """What `plan` says of an overlay: by action the objects, and at the end how many; those unchanged are counted."""
    *lines, summary = way.plan(overlay).splitlines()
    found: dict[str, set[str]] = {}
    for action, _, each in (line.partition(" ") for line in lines if not line.startswith(" ")):
        found.setdefault(action, set()).add(each.strip().removesuffix(" (not checked by the server yet)"))
    kept = expected.pop("unchanged", set())
    assert found == {action: objects for action, objects in expected.items() if objects}
    counts = {action: len(objects) for action, objects in {**expected, "unchanged": kept}.items()}
    assert summary == ", ".join(f"{n} {action}" for action, n in counts.items() if n or action == "unchanged")


def assert_change_planned(way: Deploy, overlay: str, before: Sequence[Manifest], after: Sequence[Manifest]) -> None:
    """Tiers are changed, jobs made anew, settings and secrets with another hash created and the old ones removed."""
    old, new = named_in_plan(before), named_in_plan(after)
    changed = named_in_plan([m for m in after if m["kind"] == "StatefulSet" and label(m)[2] != "kafka"])
    replaced = named_in_plan([each for each in after if each["kind"] == "Job"])
    assert len(changed) == 3, "the edge's, the fog's and the cloud's"
    parts = {"create": new - old, "change": changed, "replace": replaced, "remove": old - new}
    assert_planned(way, overlay, **parts, unchanged=new & old - changed - replaced)


def assert_told_how_it_is(way: Deploy, overlay: str, manifests: Sequence[Manifest]) -> None:
    """`status` ends with 0 and has a line for the brokers, the topics and each tier, in each namespace.

    A faked node has no kubelet that could pass on what a pod's page has: that is said of each replica, and is no error.
    """
    told, cluster = way.status(overlay), way.cluster
    faked = all("kwok" in node["status"]["nodeInfo"]["kubeletVersion"] for node in cluster.listed("nodes"))
    for each in manifests:
        namespace, kind, name = label(each)
        part = told.partition(f"namespace {namespace}\n")[2].partition("namespace ")[0].splitlines()
        if kind == "Job" and name == "topics":
            assert "  topics   complete" in part, told
        elif kind == "StatefulSet":
            size = cluster.listed("-n", namespace, "statefulset", name)[0]["spec"]["replicas"]
            tier = name.removesuffix("-tier")
            assert f"  {'brokers' if name == 'kafka' else tier:<8} {size} of {size} ready" in part, told
            silent = [line for line in part if f" {name}-" in line and "could not be asked for its figures: " in line]
            assert len(silent) == (size if faked and name != "kafka" else 0), told


@pytest.mark.parametrize("name", [*OVERLAYS, OF_VOLUME])
def test_an_overlay_comes_stays_changes_pod_by_pod_and_goes(cluster, way, name, table, kustomize, tmp_path):
    overlay = f"overlays/{name}"
    manifests = render(kustomize, way.k8s / overlay)
    if isinstance(way, Deploy):
        assert_planned(way, overlay, create=named_in_plan(manifests))
    clock = Clock()

    way.apply(overlay)
    laps = [clock.lap()]
    pods = cluster.wait_running(manifests)
    laps.append(clock.lap())
    assert set(cluster.live(manifests)) == {str(label(each)) for each in manifests}

    assert_selectors_find_their_pods(cluster, manifests)

    kept = [each for each in manifests if not (way.jobs_made_anew and each["kind"] == "Job")]
    assert_changes_nothing(cluster, kept, lambda: way.apply(overlay))
    laps.append(clock.lap())

    write_changed(way.k8s, overlay, manifests)
    changed = render(kustomize, way.k8s / "overlays/changed")
    if isinstance(way, Deploy):
        assert_planned(way, overlay, unchanged=named_in_plan(manifests))
        assert_told_how_it_is(way, overlay, manifests)
        assert_change_planned(way, "overlays/changed", manifests, changed)
    clock.lap()
    lows = change(cluster, way, changed, pods, tmp_path)
    laps.append(clock.lap())

    delete(way, manifests)
    laps.append(clock.lap())
    least = ", ".join(sorted({f"{low} of {size}" for low, size in lows}))
    table.append((type(way).__name__, name, str(len(manifests)), str(len(pods)), *laps, least))


def change(
    cluster: Cluster, way: Way, changed: Sequence[Manifest], pods: Sequence[Manifest], folder: Path
) -> list[tuple[int, int]]:
    """Another bundle: the tiers have new pods, one at a time, and the brokers keep theirs.

    Returns:
        Of each StatefulSet how many pods were there at least, and how many it has.
    """
    before, spaces = by_set(pods), namespaces(changed)
    with ExitStack() as stack:
        watches = {space: stack.enter_context(watched(cluster, space, folder / space)) for space in spaces}
        way.change("overlays/changed")
        after_pods = cluster.wait_running(changed)
        after = by_set(after_pods)
        lows: dict[str, int] = {}
        for space, watch in watches.items():
            there = {uid for key, uids in after.items() if key.startswith(f"{space}/") for uid in uids}
            lows |= {f"{space}/{name}": low for name, low in watch.lowest(there).items()}
    for key, uids in before.items():
        if key.endswith("/kafka"):
            assert after[key] == uids, "a broker was restarted for a bundle"
            assert lows[key] == len(uids)
        else:
            assert not after[key] & uids, f"{key} has pods of the old bundle"
            assert lows[key] >= len(uids) - 1, f"{key} had {lows[key]} of {len(uids)} pods: the events are in {folder}"
    images = {c["image"] for pod in after_pods for c in pod["spec"]["containers"]}
    assert all(image.endswith(f":{ANOTHER}") for image in images if image.startswith("branchy-"))
    return [(lows[key], len(uids)) for key, uids in before.items()]


def delete(way: Way, manifests: Sequence[Manifest]) -> None:
    """Nothing stays but the brokers' disks and what they are in; told to, those go too."""
    cluster, spaces = way.cluster, namespaces(manifests)
    disks = {("PersistentVolumeClaim", f"data-kafka-{number}") for number in range(3)}
    if way.keeps_claims:
        disks |= {label(each)[1:] for each in manifests if each["kind"] == "PersistentVolumeClaim"}
    if way.keeps_disks:
        way.delete("overlays/changed", data=False)
        for left in [partial(cluster.left, space) for space in spaces]:
            until(lambda left=left: left() == disks, "only disks are left", left)
    way.delete("overlays/changed", data=True)
    for left in [partial(cluster.listed, "namespace", space) for space in spaces]:
        until(lambda left=left: not left(), "the namespace is gone", left)
    volumes = cluster.listed("pv")
    assert not [each for each in volumes if each["spec"].get("claimRef", {}).get("namespace") in spaces]


def test_applied_again_an_overlay_leaves_the_replicas_that_keda_has_set(cluster, way, kustomize):
    manifests = render(kustomize, way.k8s / "overlays/autoscale")
    way.apply("overlays/autoscale")
    cluster.wait_running(manifests)
    cluster.run("-n", "branchy", "scale", "statefulset/fog-tier", "--replicas=3")
    cluster.wait_running(manifests)
    way.apply("overlays/autoscale")
    (fog,) = cluster.listed("-n", "branchy", "statefulset", "fog-tier")
    assert fog["spec"]["replicas"] == 3


def test_a_field_that_kubernetes_does_not_know_is_refused_and_named(way):
    wrong = way.k8s / "overlays" / "wrong"
    wrong.mkdir(exist_ok=True)
    patch = "- {op: add, path: /spec/replcias, value: 3}"
    own = {"resources": ["../local"], "patches": [{"target": {"kind": "StatefulSet", "name": "kafka"}, "patch": patch}]}
    (wrong / "kustomization.yaml").write_text(yaml.safe_dump(own))
    with pytest.raises(AssertionError, match="replcias"):
        way.apply("overlays/wrong")
