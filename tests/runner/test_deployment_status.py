from __future__ import annotations

import pytest

from branchy.errors import ClusterError, UsageError
from branchy.runner.deployment_logs import logs
from branchy.runner.deployment_status import status

PAGE = """# TYPE branchy_tier_info gauge
branchy_tier_info{cascade="c",tier="edge",model="%s",version="1"} 1
# TYPE branchy_answers_total counter
branchy_answers_total{cascade="c",tier="edge",reason="confident"} 30
branchy_answers_total{cascade="c",tier="edge",reason="front"} 9
branchy_answers_total{cascade="c",tier="edge",reason="timeout"} 1
# TYPE branchy_unsettled_requests gauge
branchy_unsettled_requests{cascade="c",tier="edge"} 2
# TYPE branchy_lag gauge
branchy_lag{cascade="c",tier="edge",topic="branchy.c.edge.requests"} 7
# TYPE branchy_oldest_waiting_seconds gauge
branchy_oldest_waiting_seconds{cascade="c",tier="edge"} 0.25
# TYPE branchy_breaker_open gauge
branchy_breaker_open{cascade="c",tier="edge"} 1
# TYPE branchy_request_duration_seconds histogram
branchy_request_duration_seconds_bucket{cascade="c",tier="edge",le="0.01"} 20
branchy_request_duration_seconds_bucket{cascade="c",tier="edge",le="0.1"} 40
branchy_request_duration_seconds_bucket{cascade="c",tier="edge",le="+Inf"} 40
"""


def test_brokers_topics_and_tiers_are_told_with_what_the_tiers_say(deployed):
    deployed.apply()
    deployed.fake.pages["edge-tier-0"] = PAGE % ("f" * 64)
    found = status(deployed.api, deployed.objects)
    assert found.ok
    assert found.lines[:3] == ["namespace branchy", "  brokers  3 of 3 ready", "  topics   complete"]
    edge = found.lines.index("  edge     1 of 1 ready")
    assert [line.strip() for line in found.lines[edge + 1 : edge + 6]] == [
        "answers: 40 (confident 75.0 %, front 22.5 %, timeout 2.5 %)",
        "latency: p50 10.0 ms, p99 98.2 ms",
        "2 under way, the oldest waits 250 ms",
        "topic branchy.c.edge.requests: lag 7",
        "circuit breaker open at 1: the tier in front does not answer in time",
    ]


def edge_lag(deployed, *pages: str) -> list[str]:
    """What is told of the lag of an edge with these replicas' pages; an empty one cannot be asked."""
    for each in deployed.objects:
        if each["kind"] == "StatefulSet" and each["metadata"]["name"] == "edge-tier":
            each["spec"]["replicas"] = len(pages)
    deployed.apply()
    deployed.fake.pages = {f"edge-tier-{number}": text for number, text in enumerate(pages) if text}
    return [line.strip() for line in status(deployed.api, deployed.objects).lines if "lag" in line]


def test_a_topics_lag_is_that_of_all_replicas(deployed):
    assert edge_lag(deployed, PAGE, PAGE.replace("} 7", "} 5")) == ["topic branchy.c.edge.requests: lag 12"]


def test_a_lag_that_not_all_replicas_know_is_said_to_be_that_at_least(deployed):
    silent, without = "", PAGE.replace("branchy_lag{", "other{")
    assert edge_lag(deployed, PAGE, silent, without) == [
        "topic branchy.c.edge.requests: lag at least 7, 2 of 3 replicas do not know theirs"
    ]


def test_a_lag_that_no_replica_knows_is_not_taken_for_none(deployed):
    assert edge_lag(deployed, PAGE.replace("branchy_lag{", "other{")) == ["its topic's lag is not known yet"]


def test_what_cannot_be_asked_is_said_and_is_no_error(deployed):
    deployed.apply()
    deployed.fake.pages["fog-tier-0"] = "<html>"
    found = status(deployed.api, deployed.objects)
    assert found.ok
    assert any("cloud-tier-0 could not be asked for its figures: the API server answered 503" in x for x in found.lines)
    assert any("fog-tier-0 could not be asked for its figures: expected figures" in line for line in found.lines)


def test_a_tier_with_another_bundle_than_was_deployed_is_named(deployed):
    for each in deployed.objects:
        if each["kind"] == "StatefulSet" and each["metadata"]["name"] == "edge-tier":
            each["spec"]["template"]["metadata"]["annotations"]["branchy.io/bundle"] = "a" * 64
    deployed.apply()
    deployed.fake.pages["edge-tier-0"] = PAGE % ("f" * 64)
    lines = status(deployed.api, deployed.objects).lines
    assert any("serves the bundle ffffffffffff, deployed for aaaaaaaaaaaa" in line for line in lines)


def test_what_does_not_run_is_no_success(deployed):
    assert status(deployed.api, deployed.objects) == (
        False,
        ["namespace branchy: nothing is deployed, it is not there"],
    )
    deployed.apply()
    deployed.fake.broken["edge-tier"] = {"waiting": {"reason": "ImagePullBackOff"}}
    deployed.fake.settle(deployed.fake.get("statefulsets", "edge-tier"))
    deployed.fake.delete(("jobs", "branchy", "topics"))
    found = status(deployed.api, deployed.objects)
    assert not found.ok
    assert "           edge-tier-0: ImagePullBackOff" in found.lines
    assert "  topics   not there" in found.lines


def test_logs_of_several_pods_have_their_names_in_front(deployed):
    deployed.apply()
    deployed.fake.logs = {f"kafka-{n}": ["one", f"two of {n}"] for n in range(3)}
    assert list(logs(deployed.api, deployed.objects, "kafka", tail=2, follow=False))[:3] == [
        "kafka-0: one",
        "kafka-0: two of 0",
        "kafka-1: one",
    ]
    deployed.fake.logs["edge-tier-0"] = ["hello"]
    for follow in (False, True):
        assert list(logs(deployed.api, deployed.objects, "edge", tail=2, follow=follow)) == ["hello"]


def test_followed_logs_are_those_of_all_pods_and_what_cannot_be_read_is_said(deployed):
    deployed.apply()
    deployed.fake.logs = {"kafka-0": ["a"], "kafka-2": ["c"]}
    found = sorted(logs(deployed.api, deployed.objects, "kafka", tail=2, follow=True))
    assert found == [
        "kafka-0: a",
        "kafka-1: (no more can be read: the API server answered 400: no logs)",
        "kafka-2: c",
    ]


def test_logs_of_what_is_not_there(deployed):
    with pytest.raises(UsageError, match="attic: expected one of cloud, device, edge, fog, kafka, topics"):
        list(logs(deployed.api, deployed.objects, "attic", tail=1, follow=False))
    with pytest.raises(ClusterError, match="edge has no pods in branchy"):
        list(logs(deployed.api, deployed.objects, "edge", tail=1, follow=False))
