from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from memory_cascade import CASCADE, MemoryCascade, sample
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from branchy.core import tier_machine, topics
from branchy.runner.health import Health
from branchy.runner.metrics import COUNTED, COUNTED_BY, registry_of


@pytest.fixture
def cascade() -> Iterator[MemoryCascade]:
    cascade = MemoryCascade()
    yield cascade
    cascade.close()


def read(health: Health) -> dict[tuple[str, frozenset], float]:
    """Every sample by its name and its labels beside cascade and tier, as Prometheus reads them."""
    text = generate_latest(registry_of(health)).decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            if one.name.startswith("branchy_"):
                assert (one.labels.pop("cascade"), one.labels.pop("tier")) == (health.cascade, health.tier)
            found[one.name, frozenset(one.labels.items())] = one.value
    return found


def value(found: dict, name: str, **labels: str) -> float:
    return found[f"branchy_{name}", frozenset(labels.items())]


def test_requests_answers_by_reason_and_latency_are_counted(cascade):
    health = cascade.start("edge").health()
    cascade.start("fog")
    for sure_at in (0, 0, 1):
        cascade.ask(sample(sure_at), to="edge")
    cascade.ask(sample(0), to="edge", model="e" * 64)
    cascade.answers(4)
    found = read(health)
    assert value(found, "requests_total") == 4
    reasons = {reason: value(found, "answers_total", reason=reason) for reason in ("confident", "front", "digest")}
    assert reasons == {"confident": 2, "front": 1, "digest": 1}
    assert value(found, "answers_total", reason="timeout") == 0, "what never happened is there, as 0"
    assert value(found, "forwards_total") == 1
    assert value(found, "request_duration_seconds_count") == 3
    assert value(found, "request_duration_seconds_bucket", le="+Inf") == 3
    assert value(found, "request_duration_seconds_bucket", le="30.0") == 3
    assert value(found, "request_duration_seconds_sum") > 0


def test_gauges_say_how_it_is_now(cascade):
    health = cascade.start("edge").health()
    found = read(health)
    assert value(found, "ready") == 1
    assert value(found, "brokers_up", link="back") == 1
    names = ("pending_requests", "waiting_requests", "unsettled_requests", "oldest_waiting_seconds", "breaker_open")
    assert [value(found, name) for name in names] == [0] * 5
    cascade.ask(sample(2), to="edge")
    cascade.ask(sample(0), to="edge")
    cascade.answer()
    assert value(read(health), "pending_requests") == 1


def test_a_paused_tiers_lag_is_what_was_sent_since(cascade):
    edge = cascade.start("edge")
    health, topic = edge.health(), topics.requests(CASCADE, "edge")
    assert value(read(health), "lag", topic=topic) == 0
    edge.back.source.pause()
    for _ in range(3):
        cascade.ask(sample(0), to="edge")
    assert value(read(health), "lag", topic=topic) == 3
    edge.back.source.resume()
    cascade.answers(3)
    assert value(read(health), "lag", topic=topic) == 0


def test_a_lag_that_is_not_known_has_no_value(cascade):
    edge = cascade.start("edge")
    health = edge.health()
    edge.back.source.close()
    assert not [name for name, _ in read(health) if name == "branchy_lag"]


def test_before_a_tier_runs_there_is_what_is_known():
    found = read(Health())
    assert value(found, "ready") == 0
    assert ("branchy_requests_total", frozenset()) not in found
    assert ("process_resident_memory_bytes", frozenset()) in found


def test_every_word_that_the_machine_counts_is_a_metric():
    source = Path(tier_machine.__file__).read_text(encoding="utf-8")
    words = set(re.findall(r'counters\[f?"([a-z.]+)', source)) | {"late", "stray"}
    assert len(words) > 8
    missing = {word for word in words if word not in COUNTED and word.partition(".")[0] not in COUNTED_BY}
    assert not missing


def test_the_documentation_has_each_metric_and_no_other(cascade):
    families = registry_of(cascade.start("edge").health()).collect()
    there = {f"{f.name}_total" if f.type == "counter" else f.name for f in families if f.name.startswith("branchy_")}
    text = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(branchy_\w+)` \|", text, re.MULTILINE)) == there
    assert set(re.findall(r"branchy_\w+", text)) == there
