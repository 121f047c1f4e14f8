from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchy.transport.kafka.topic_settings import ROOM_BYTES, differences, settings_for

KINDS = ("requests", "answers", "dead")
names = st.sampled_from([f"branchy.c.edge.{kind}" for kind in KINDS])
sizes = st.integers(0, 32 * 1024 * 1024)


@given(names, sizes)
def test_a_topic_made_by_branchy_fits(name, size):
    assert differences(name, size, settings_for(name, size)) == []


@given(names, sizes)
def test_a_limit_has_room_for_a_batch_of_the_largest_message_and_a_segment_for_a_batch(name, size):
    settings = {key: value for key, value in settings_for(name, size).items() if key.endswith("bytes")}
    batch_bytes = int(settings["max.message.bytes"]) - 64 * 1024  # what a producer may put into one batch
    assert batch_bytes > size
    assert int(settings["segment.bytes"]) >= int(settings["max.message.bytes"]) >= 1_048_588


@given(sizes)
def test_dead_letters_have_more_room_than_the_requests_that_they_were(size):
    requests, dead = (int(settings_for(f"branchy.c.edge.{kind}", size)["max.message.bytes"]) for kind in KINDS[::2])
    assert dead >= requests + 16 * 1024


def test_brokers_open_every_batch_but_those_of_a_tiers_own_dead_letters():
    assert [settings_for(f"branchy.c.edge.{kind}", 0).get("compression.type") for kind in KINDS] == [
        "uncompressed",
        "uncompressed",
        None,
    ]


def test_dead_letters_live_days_and_the_rest_an_hour():
    hours = {kind: int(settings_for(f"branchy.c.edge.{kind}", 0)["retention.ms"]) / 3_600_000 for kind in KINDS}
    assert hours == {"requests": 1, "answers": 1, "dead": 7 * 24}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"message.timestamp.type": "CreateTime"}, "message.timestamp.type is CreateTime, expected LogAppendTime"),
        ({"cleanup.policy": "compact"}, "cleanup.policy is compact, expected delete"),
        ({"compression.type": "producer"}, "compression.type is producer, expected uncompressed"),
        ({"max.message.bytes": "1000"}, f"max.message.bytes is 1000, expected at least {2_000_000 + ROOM_BYTES}"),
        ({"retention.ms": "60000"}, "retention.ms is 60000, expected at least 3600000"),
        ({"segment.ms": "604800000"}, "segment.ms is 604800000, expected at most 60000"),
        ({"segment.bytes": "1073741824"}, "segment.bytes is 1073741824, expected at most 67108864"),
    ],
)
def test_what_differs_is_named_with_what_was_expected(changed, said):
    name = "branchy.c.edge.requests"
    assert differences(name, 2_000_000, {**settings_for(name, 2_000_000), **changed}) == [said]


@pytest.mark.parametrize("name", ["branchy.c.device.answers", "branchy.c.device.answers.camera", "branchy.mine"])
def test_a_topic_for_answers_takes_batches_of_them(name):
    """Who answers there learns the topic from the request, and nothing of what it takes."""
    found = {**settings_for(name, 0), "max.message.bytes": "200000"}
    assert differences(name, 0, found) == ["max.message.bytes is 200000, expected at least 1048588"]


@pytest.mark.parametrize(
    ("copies", "in_sync", "said"),
    [
        (3, "1", ["min.insync.replicas is 1, expected at least 2"]),
        (5, "1", ["min.insync.replicas is 1, expected at least 2"]),
        (3, "2", []),
        (2, "1", []),
        (1, "1", []),
    ],
)
def test_of_three_copies_two_must_have_a_message_before_it_counts_as_sent(copies, in_sync, said):
    name = "branchy.c.edge.requests"
    found = {**settings_for(name, 0), "min.insync.replicas": in_sync}
    assert differences(name, 0, found, copies) == said
    assert differences(name, 0, settings_for(name, 0, copies), copies) == []


@pytest.mark.parametrize(
    "more",
    [{"retention.ms": "-1"}, {"retention.ms": "9999999999"}, {"max.message.bytes": "99999999"}, {"segment.ms": "1"}],
)
def test_more_than_is_needed_fits(more):
    name = "branchy.c.edge.requests"
    assert differences(name, 100, {**settings_for(name, 100), **more}) == []


def test_a_setting_that_the_brokers_do_not_tell_is_a_difference_but_no_crash():
    name = "branchy.c.edge.answers"
    settings = settings_for(name, 0)
    del settings["retention.ms"]
    assert differences(name, 0, settings) == ["retention.ms is not told, expected at least 3600000"]


@pytest.mark.parametrize("name", ["branchy.b.edge.requests", "branchy.b.device.answers"])
def test_partitions_that_are_made_at_once_end_their_segments_at_different_times(name):
    settings = settings_for(name, 0)
    assert 0 < int(settings["segment.jitter.ms"]) < int(settings["segment.ms"])
    assert differences(name, 0, settings | {"segment.jitter.ms": "0"}) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_document_for_other_tools_has_each_setting_with_its_value(kind):
    text = (Path(__file__).parents[3] / "docs" / "brokers-elsewhere.md").read_text(encoding="utf-8")
    head, body = re.search(r"^(\| setting \|.*)\n.*\n((?:\|.*\n)+)", text, re.MULTILINE).groups()
    column = [cell.strip(" `") for cell in head.split("|")].index(f".{kind}")
    rows = [[cell.strip(" `") for cell in line.split("|")] for line in body.splitlines()]
    told = {row[1]: row[column] for row in rows if row[column] != "-"}
    assert told == settings_for(f"branchy.c.edge.{kind}", 458_000, copies=3)
    assert f"twice the body and twice {ROOM_BYTES}, of `.dead` {ROOM_BYTES} more" in text
