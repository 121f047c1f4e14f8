"""A tier's figures for Prometheus, read when they are asked for: a message pays for none of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import get_args

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from branchy import __version__
from branchy.core import topics
from branchy.core.messages import Reason
from branchy.runner.health import Health, Snapshot

COUNTED = {
    "came": ("requests", "Requests that came, malformed ones aside."),
    "again": ("repeated_requests", "Requests that came while an earlier delivery of them was under way."),
    "forwarded": ("forwards", "Requests sent up."),
    "late": ("late_answers", "Answers of the front that came after this tier had answered itself."),
    "stray": ("stray_answers", "Answers of the front that nobody had asked for."),
    "dead": ("dead_letters", "Messages put to the dead letters."),
    "send.failed": ("failed_sends", "Answers and dead letters that the brokers did not take at first."),
    "undeliverable": ("undeliverable", "Answers given up: sending them again cannot help, or nobody waits any more."),
    "paused": ("pauses", "Times that the queue of requests was paused."),
    "breaker.open": ("breaker_opened", "Times that the circuit breaker opened."),
}
"""By the tier machine's word: name and meaning."""

COUNTED_BY = {
    "answer": ("answers", "reason", "Answers by reason; 'front' for those passed on from the tier in front."),
    "malformed": ("malformed", "code", "Messages that could not be used, by what was wrong."),
    "front": ("front_refusals", "reason", "Answers of the front that were no prediction, by reason."),
}
"""By the first part of the machine's word: name, label of the second part, and meaning."""

_LABELS = ("cascade", "tier")


def registry_of(health: Health) -> CollectorRegistry:
    """A registry of a tier's figures and its process'."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_TierCollector(health))
    ProcessCollector(registry=registry)
    return registry


class _TierCollector(Collector):
    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[Metric]:
        health = self._health
        own = (health.cascade, health.tier)
        info = GaugeMetricFamily("branchy_tier_info", "Which model it serves.", labels=(*_LABELS, "model", "version"))
        info.add_metric((*own, health.model, __version__), 1)
        yield info
        yield _gauge(own, "ready", "1 when it takes requests and can answer them.", health.ready().ok)
        snapshot = health.snapshot()
        if snapshot is not None:
            yield from _gauges(own, snapshot)
            yield _lag(own, snapshot)
            yield from _counters(own, snapshot.counters)
            yield _latency(own, snapshot)


def _gauge(own: tuple[str, ...], name: str, meaning: str, value: float) -> Metric:
    family = GaugeMetricFamily(f"branchy_{name}", meaning, labels=_LABELS)
    family.add_metric(own, float(value))
    return family


def _gauges(own: tuple[str, ...], found: Snapshot) -> Iterator[Metric]:
    yield _gauge(own, "pending_requests", "Requests that wait for the front.", found.pending)
    yield _gauge(own, "waiting_requests", "Requests that wait to be computed.", found.waiting)
    yield _gauge(own, "unsettled_requests", "Deliveries whose answer is not acknowledged yet.", found.unsettled)
    oldest = "Age of the request that waits longest to be computed, 0 when none waits."
    yield _gauge(own, "oldest_waiting_seconds", oldest, found.oldest_waiting_s)
    batch = "How long the batch at hand has been running, 0 when none is."
    yield _gauge(own, "batch_seconds", batch, found.batch_s)
    yield _gauge(own, "breaker_open", "1 while nothing goes up but probes.", found.breaker_open)
    links = GaugeMetricFamily("branchy_brokers_up", "1 while brokers can be reached.", labels=(*_LABELS, "link"))
    links.add_metric((*own, "back"), float(found.back_up))
    links.add_metric((*own, "front"), float(found.front_up))
    yield links


def _lag(own: tuple[str, ...], found: Snapshot) -> Metric:
    """Without a value while it is not known: 0 would say that nothing waits."""
    meaning = "Requests in the topic, over this replica's partitions, that it has not taken yet."
    family = GaugeMetricFamily("branchy_lag", meaning, labels=(*_LABELS, "topic"))
    if found.lag is not None:
        family.add_metric((*own, topics.requests(*own)), found.lag)
    return family


def _counters(own: tuple[str, ...], counters: Mapping[str, int]) -> Iterator[Metric]:
    for word, (name, meaning) in COUNTED.items():
        family = CounterMetricFamily(f"branchy_{name}", meaning, labels=_LABELS)
        family.add_metric(own, counters.get(word, 0))
        yield family
    for prefix, (name, label, meaning) in COUNTED_BY.items():
        family = CounterMetricFamily(f"branchy_{name}", meaning, labels=(*_LABELS, label))
        # Prometheus misses the first of a series that was not there before: what is known is there from the start.
        known = (*get_args(Reason), "front") if prefix == "answer" else ()
        found = {word.partition(".")[2]: n for word, n in counters.items() if word.startswith(f"{prefix}.")}
        for value, n in (dict.fromkeys(known, 0) | found).items():
            family.add_metric((*own, value), n)
        yield family


def _latency(own: tuple[str, ...], found: Snapshot) -> Metric:
    meaning = "From a request's arrival at this tier to its answer."
    family = HistogramMetricFamily("branchy_request_duration_seconds", meaning, labels=_LABELS)
    bounds = [*(str(bound / 1e3) for bound in found.latency_bounds_ms), "+Inf"]
    family.add_metric(own, list(zip(bounds, found.latency_counts, strict=True)), found.latency_sum_ms / 1e3)
    return family
