"""What the brokers know of consumer groups."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from client import WAIT_S
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient


def wait_for_shares(brokers: str, group: str, shares: list[int]) -> None:
    """Until the members of a group own so many partitions each, by the broker's word."""
    admin = AdminClient({"bootstrap.servers": brokers, "log_level": 0})
    _wait(lambda: _shares(admin, group), sorted(shares), f"members of {group} to have so many partitions each")


def owned(brokers: str, group: str) -> Mapping[str, frozenset[int]]:
    """By the client ids of a group's members the partitions that they own, by the broker's word."""
    admin = AdminClient({"bootstrap.servers": brokers, "log_level": 0})
    members = admin.describe_consumer_groups([group])[group].result().members
    return {each.client_id: frozenset(p.partition for p in each.assignment.topic_partitions) for each in members}


def wait_for_commits(brokers: str, group: str, count: int) -> None:
    """Until a group has committed so many messages, by the broker's word: their answers are acknowledged."""
    admin = AdminClient({"bootstrap.servers": brokers, "log_level": 0})
    _wait(lambda: _committed(admin, group), count, f"{group} to have committed")


def _wait(look: Callable[[], object], wanted: object, what: str) -> None:
    until_s = time.monotonic() + WAIT_S
    while (found := look()) != wanted:
        assert time.monotonic() < until_s, f"expected {what} {wanted}, found {found}"
        time.sleep(0.05)


def _shares(admin: AdminClient, group: str) -> list[int]:
    described = admin.describe_consumer_groups([group])[group].result()
    return sorted(len(member.assignment.topic_partitions) for member in described.members)


def _committed(admin: AdminClient, group: str) -> int:
    listed = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result()
    return sum(max(0, place.offset) for place in listed.topic_partitions)
