from __future__ import annotations

import math

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from branchy.errors import ClusterError
from branchy.runner.deployment_figures import Figures, figures


def page(*latencies_s: float) -> str:
    registry = CollectorRegistry()
    kept = Histogram("branchy_request_duration_seconds", "x", registry=registry, buckets=(0.1, 0.2, 0.4))
    for each in latencies_s:
        kept.observe(each)
    return generate_latest(registry).decode()


def test_replicas_are_put_together():
    found = figures([page(0.05, 0.15), page(0.15, 0.3)])
    assert found.latency_counts == {0.1: 1, 0.2: 3, 0.4: 4, math.inf: 4}
    assert found.latency_s(0.25) == pytest.approx(0.1)
    assert found.latency_s(0.5) == pytest.approx(0.15)
    assert found.latency_s(1.0) == pytest.approx(0.4)


def test_a_latency_above_the_last_bound_is_told_as_such_and_none_without_answers():
    assert figures([page(5.0)]).latency_s(0.5) == math.inf
    assert figures([page()]).latency_s(0.5) is None
    assert Figures().latency_s(0.5) is None


@pytest.mark.parametrize("text", ["<html>", 'a{b="c"} d', "x{"])
def test_a_page_that_is_something_else_is_refused(text):
    with pytest.raises(ClusterError, match="Prometheus"):
        figures([text])
