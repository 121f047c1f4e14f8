"""What the brokers know of consumer groups."""

from __future__ import annotations

import time

from client import WAIT_S
from confluent_kafka.admin import AdminClient


def wait_for_shares(brokers: str, group: str, shares: list[int]) -> None:
    """Until the members of a group own so many partitions each, by the broker's word."""
    admin = AdminClient({"bootstrap.servers": brokers, "log_level": 0})
    until_s = time.monotonic() + WAIT_S
    while (found := _shares(admin, group)) != sorted(shares):
        assert time.monotonic() < until_s, f"{group}: expected members with {shares} partitions, found {found}"
        time.sleep(0.05)


def _shares(admin: AdminClient, group: str) -> list[int]:
    described = admin.describe_consumer_groups([group])[group].result()
    return sorted(len(member.assignment.topic_partitions) for member in described.members)
