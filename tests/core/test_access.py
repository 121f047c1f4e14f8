from __future__ import annotations

from collections import defaultdict

import pytest

from branchy.core import topics
from branchy.core.access import DEVICE, Rule, rules
from branchy.core.cascade import FULL, CascadeSpec

CASCADE = "c"


@pytest.fixture
def spec(toy_bundle) -> CascadeSpec:
    """Stages edge, hall and cloud."""
    return toy_bundle.spec


def users_with(found: list[Rule], operation: str, name: str, kind: str = "topic") -> set[str]:
    """Who may do this to a resource of this name."""
    return {
        rule.user
        for rule in found
        if operation in rule.operations
        and rule.kind == kind
        and (name.startswith(rule.name) if rule.prefix else name == rule.name)
    }


def test_only_a_tier_reads_its_requests_and_in_its_own_group(spec):
    found = rules(spec, CASCADE, ["camera"])
    for tier in ("edge", "hall", "cloud", FULL):
        assert users_with(found, "READ", topics.requests(CASCADE, tier)) == {tier}
        assert users_with(found, "READ", topics.group(CASCADE, tier), "group") == {tier}
        assert users_with(found, "WRITE", topics.dead_letters(CASCADE, tier)) == {tier}
        assert users_with(found, "READ", topics.dead_letters(CASCADE, tier)) == set()


def test_requests_come_from_below_and_answers_from_above(spec):
    found = rules(spec, CASCADE)
    writers = {tier: users_with(found, "WRITE", topics.requests(CASCADE, tier)) for tier in ("edge", "hall", "cloud")}
    assert writers == {"edge": {DEVICE}, "hall": {"edge"}, "cloud": {"edge", "hall"}}
    assert users_with(found, "WRITE", topics.requests(CASCADE, FULL)) == {DEVICE}
    answerers = {who: users_with(found, "WRITE", topics.answers(CASCADE, who)) for who in (DEVICE, "edge", "hall")}
    assert answerers == {DEVICE: {"edge", FULL}, "edge": {"hall", "cloud"}, "hall": {"cloud"}}


def test_a_reply_topic_of_ones_own_has_one_reader_and_the_shared_ones_writers(spec):
    found = rules(spec, CASCADE, ["camera", "door", "camera"])
    shared = topics.answers(CASCADE, DEVICE)
    assert users_with(found, "READ", shared) == {DEVICE}
    for device in ("camera", "door"):
        own = topics.answers(CASCADE, DEVICE, device)
        assert users_with(found, "READ", own) == {device}
        assert users_with(found, "WRITE", own) == users_with(found, "WRITE", shared)
        assert users_with(found, "WRITE", topics.requests(CASCADE, "edge")) == {DEVICE, "camera", "door"}


def test_who_reads_or_writes_a_topic_by_name_may_see_what_it_takes(spec):
    wanted = defaultdict(set)
    for rule in rules(spec, CASCADE, ["camera"]):
        if rule.kind == "topic" and not rule.prefix:
            wanted[rule.user, rule.name] |= set(rule.operations)
    assert all("DESCRIBE_CONFIGS" in operations for operations in wanted.values())


def test_another_cascade_is_out_of_reach(spec):
    found = rules(spec, CASCADE, ["camera"])
    assert not [rule for rule in found if not rule.name.startswith(f"branchy.{CASCADE}.")]
