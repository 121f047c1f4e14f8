"""A tier's figures, as its replicas' `/metrics` give them, put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from branchy.errors import ClusterError


@dataclass(frozen=True, slots=True)
class Figures:
    """Of all replicas of a tier, since each started.

    Attributes:
        answers: how many by reason; `front` for those passed on from the tier in front.
        latency_counts: answers that took at most so many seconds, by the bound; the last bound is infinite.
        lag: by topic, requests that these replicas have not taken yet; without those that do not know it.
        lag_known: how many replicas know theirs.
        waiting: requests taken that are not settled yet.
        oldest_waiting_s: age of the request that waits longest to be computed.
        breakers_open: replicas of which nothing goes up but probes.
        models: digests of the bundles that they serve.
    """

    answers: Counter[str] = field(default_factory=Counter)
    latency_counts: Counter[float] = field(default_factory=Counter)
    lag: Counter[str] = field(default_factory=Counter)
    lag_known: int = 0
    waiting: int = 0
    oldest_waiting_s: float = 0.0
    breakers_open: int = 0
    models: frozenset[str] = frozenset()

    def shares(self) -> Mapping[str, float]:
        """Per cent of the answers by reason, the most frequent first; those that there are."""
        total = self.answers.total()
        return {reason: 100 * n / total for reason, n in self.answers.most_common() if n}

    def latency_s(self, quantile: float) -> float | None:
        """A quantile of the latency, interpolated between two bounds; None without answers, infinite above the last.

        Prometheus' `histogram_quantile` does the same.
        """
        bounds = sorted(self.latency_counts)
        if not bounds or not self.latency_counts[bounds[-1]]:
            return None
        rank = quantile * self.latency_counts[bounds[-1]]
        low, below = 0.0, 0
        for bound in bounds:
            count = self.latency_counts[bound]
            if count >= rank:
                return bound if bound == float("inf") else low + (bound - low) * (rank - below) / max(1, count - below)
            low, below = bound, count
        return float("inf")


def figures(pages: Sequence[str]) -> Figures:
    """What the pages of a tier's replicas say together.

    Args:
        pages: each as Prometheus' text format.

    Raises:
        ClusterError: one is something else.
    """
    answers: Counter[str] = Counter()
    latency: Counter[float] = Counter()
    lag: Counter[str] = Counter()
    total: Counter[str] = Counter()
    oldest_s, lag_known, models = 0.0, 0, set()
    for page in pages:
        try:
            samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
        except ValueError as error:
            raise ClusterError(f"expected figures in Prometheus' text format, got something else: {error}") from None
        for sample in samples:
            if sample.name == "branchy_answers_total":
                answers[sample.labels["reason"]] += int(sample.value)
            elif sample.name == "branchy_request_duration_seconds_bucket":
                latency[float(sample.labels["le"])] += int(sample.value)
            elif sample.name == "branchy_lag":
                lag[sample.labels["topic"]] += int(sample.value)
                lag_known += 1
            elif sample.name == "branchy_oldest_waiting_seconds":
                oldest_s = max(oldest_s, sample.value)
            elif sample.name == "branchy_tier_info":
                models.add(sample.labels["model"])
            else:
                total[sample.name] += int(sample.value) if sample.value == sample.value else 0
    return Figures(
        answers=answers,
        latency_counts=latency,
        lag=lag,
        lag_known=lag_known,
        waiting=total["branchy_unsettled_requests"],
        oldest_waiting_s=oldest_s,
        breakers_open=total["branchy_breaker_open"],
        models=frozenset(models - {""}),
    )
