"""Which partitions a fault is said to have made fail over, and for how long."""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from chaos import faults
from chaos.faults import (
    BROKER_WINDOW_S,
    COPY_WINDOW_S,
    HANDOVER_WINDOW_S,
    REPLICA_WINDOW_S,
    RETURN_WINDOW_S,
    Act,
    kill_broker,
    kill_one,
    restart_one,
)
from chaos.world import NODES

BEFORE, AFTER = frozenset({0, 1, 2}), frozenset({2, 3, 4})
NONE: frozenset[int] = frozenset()


class FakeWorld:
    """A replica that is replaced owns other partitions afterwards; brokers lead one partition each, and copy all."""

    tiers = ("edge", "fog", "cloud")
    first_requests, device_answers = "requests", "answers"

    def __init__(self) -> None:
        self.owns = {(tier, replica): BEFORE for tier in self.tiers for replica in (0, 1)}
        self.cluster = SimpleNamespace(kill_node=self.nothing, start_node=self.nothing, wait_ready=self.nothing)
        self.wait_shared = self.wait_in_sync = self.kill = self.stop = self.nothing

    def nothing(self, *_: Any) -> None:
        pass

    def start(self, which: tuple[str, int]) -> None:
        self.owns[which] = AFTER

    def owned_by(self, tier: str, replica: int) -> frozenset[int]:
        return self.owns[tier, replica]

    def partitions_at(self, node: int, topic: str) -> tuple[frozenset[int], frozenset[int]]:
        return frozenset({node + (10 if topic == "answers" else 0)}), frozenset(range(20))


@pytest.fixture
def act(monkeypatch: pytest.MonkeyPatch) -> Iterator[Act]:
    monkeypatch.setattr(faults.time, "sleep", lambda seconds: None)
    return Act(cast(Any, FakeWorld()), random.Random(1))


def said(act: Act) -> list[tuple[float, frozenset[int], frozenset[int]]]:
    return [(window.promised_s, window.requests, window.answers) for window in act.windows]


def test_of_a_killed_replica_its_own_partitions_wait_for_its_session_and_what_else_its_successor_takes_changes_hands(
    act,
):
    kill_one(act, "edge")
    assert said(act) == [(REPLICA_WINDOW_S, BEFORE, NONE), (HANDOVER_WINDOW_S, AFTER - BEFORE, NONE)]


def test_of_a_replica_that_is_told_to_stop_and_comes_back_what_it_had_and_what_it_gets_changes_hands(act):
    restart_one(act, "edge", 0)
    assert said(act) == [(HANDOVER_WINDOW_S, BEFORE, NONE), (HANDOVER_WINDOW_S, AFTER, NONE)]


def test_a_replica_of_a_further_tier_excuses_nothing(act):
    kill_one(act, "fog")
    restart_one(act, "cloud", 0)
    assert all((requests, answers) == (NONE, NONE) for _, requests, answers in said(act))


def test_of_a_killed_broker_what_it_led_fails_over_longer_than_what_it_had_a_copy_of_and_its_return_slows_these(act):
    kill_broker(act)
    copies, led, back = said(act)
    assert copies == (COPY_WINDOW_S, frozenset(range(20)), frozenset(range(20)))
    (node,) = led[1]
    assert led == (BROKER_WINDOW_S, frozenset({node}), frozenset({node + 10}))
    assert node in range(1, NODES + 1)
    assert back == (RETURN_WINDOW_S, *copies[1:])
