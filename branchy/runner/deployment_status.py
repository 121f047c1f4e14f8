"""`branchy deploy status`: how brokers, topics and tiers are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from branchy.cluster.api import EVENTS, JOBS, NAMESPACES, PODS, STATEFUL_SETS, Api
from branchy.cluster.choices import BUNDLE
from branchy.cluster.objects import (
    KAFKA,
    TOPICS,
    Manifest,
    brokers,
    component,
    containers,
    is_tier,
    key,
    namespaces,
    pod_template,
    tiers,
    topic_jobs,
)
from branchy.cluster.progress import Phase, is_ready, last_warning, pods_of, progress, trouble
from branchy.errors import ClusterError
from branchy.runner.deployment import SELECTED
from branchy.runner.deployment_figures import Figures, figures


class Status(NamedTuple):
    """How a deployment is: whether all of it runs, and lines for a person."""

    ok: bool
    lines: list[str]


def status(api: Api, manifests: Sequence[Manifest]) -> Status:
    """Ask how the brokers, the topics and the tiers are.

    What cannot be asked is said, and is no error.

    Args:
        api: of the cluster.
        manifests: the overlay's objects: the namespaces and parts that are looked for.

    Raises:
        ClusterError: the cluster cannot be reached, or tells nothing of the namespaces.
    """
    ok, lines = True, []
    for namespace in namespaces(manifests):
        here = [each for each in manifests if key(each).namespace == namespace]
        if api.get(NAMESPACES, "", namespace) is None:
            ok = False
            lines.append(f"namespace {namespace}: nothing is deployed, it is not there")
            continue
        lines.append(f"namespace {namespace}")
        look = _Look(api, namespace)
        for part in (*brokers(here), *topic_jobs(here), *tiers(here)):
            fine, told = look.part(part)
            ok = ok and fine
            lines += [f"  {line}" for line in told]
    return Status(ok, lines)


class _Look:
    """One look at a namespace: its pods are asked for once."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api = api
        self.namespace = namespace
        self.pods = api.listed(PODS, namespace, SELECTED).items

    def part(self, wanted: Manifest) -> tuple[bool, list[str]]:
        """Whether a part is as it is to be, and lines about it."""
        own, name = key(wanted), component(wanted)
        live = self.api.get(STATEFUL_SETS if own.kind == "StatefulSet" else JOBS, own.namespace, own.name)
        label = {KAFKA: "brokers", TOPICS: "topics"}.get(name, name)
        if live is None:
            return False, [f"{label:<8} not there"]
        found, mine = progress(live), pods_of(live, self.pods)
        lines = [f"{label:<8} {found.line}"]
        lines += [f"         {each}" for pod in mine if (each := trouble(pod)) is not None]
        if not mine and found.phase is Phase.WAITS:
            warning = last_warning(live, self.api.listed(EVENTS, self.namespace, fields="type=Warning").items)
            lines += [f"         {warning}"] if warning else []
        if is_tier(live):
            lines += [f"         {line}" for line in self._tier(live, mine)]
        return found.phase is Phase.DONE, lines

    def _tier(self, live: Manifest, pods: Sequence[Manifest]) -> Iterator[str]:
        pages, silent = [], []
        for pod in pods:
            port = _health_port(live)
            if port is None or not is_ready(pod):
                continue
            try:
                page = self.api.page(self.namespace, key(pod).name, port, "/metrics")
                figures([page])
                pages.append(page)
            except ClusterError as error:
                silent.append(f"{key(pod).name} could not be asked for its figures: {error}")
        if pages:
            yield from _told(figures(pages), _bundle(live), len(pods))
        yield from silent


def _told(found: Figures, wanted: str | None, replicas: int) -> Iterator[str]:
    shares = ", ".join(f"{reason} {share:.1f} %" for reason, share in found.shares().items())
    yield f"answers: {found.answers.total()}{f' ({shares})' if shares else ''}"
    half, most = found.latency_s(0.5), found.latency_s(0.99)
    if half is not None and most is not None:
        yield f"latency: p50 {_ms(half)}, p99 {_ms(most)}"
    yield f"{found.waiting} under way, the oldest waits {1e3 * found.oldest_waiting_s:.0f} ms"
    yield from _lag(found, replicas)
    if found.breakers_open:
        yield f"circuit breaker open at {found.breakers_open}: the tier in front does not answer in time"
    others = sorted(found.models - {wanted})
    if wanted is not None and others:
        yield f"serves the bundle {others[0][:12]}, deployed for {wanted[:12]}: the image or the volume has another"
    elif len(others) > 1:
        yield f"serves {len(others)} bundles: {', '.join(each[:12] for each in others)}"


def _lag(found: Figures, replicas: int) -> Iterator[str]:
    """Brokers tell it to clients inside the cluster alone, so it is what the replicas know of their partitions."""
    unknown = replicas - found.lag_known
    for topic, lag in found.lag.items():
        more = f"at least {lag}, {unknown} of {replicas} replicas do not know theirs" if unknown else lag
        yield f"topic {topic}: lag {more}"
    if not found.lag:
        yield "its topic's lag is not known yet"


def _ms(value_s: float) -> str:
    return "more than any bound" if value_s == float("inf") else f"{1e3 * value_s:.1f} ms"


def _bundle(live: Manifest) -> str | None:
    template = pod_template(live) or {}
    digest = ((template.get("metadata") or {}).get("annotations") or {}).get(BUNDLE)
    return None if digest is None else str(digest)


def _health_port(live: Manifest) -> int | None:
    ports = [port for c in containers(live) for port in c.get("ports") or [] if port.get("name") == "health"]
    return int(ports[0]["containerPort"]) if ports else None
