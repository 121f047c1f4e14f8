"""Tiers of a slow stage, offered three times what it can do; `make overload` does it for a minute and tells times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from overload import SETUPS, Overload, train
from serving_stand import Stand

from branchy.brokers.apache_kafka import KafkaCluster
from branchy.store.bundle import Bundle

pytestmark = pytest.mark.alone

SECONDS = 4.0


@pytest.fixture(scope="module")
def slow_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return train(tmp_path_factory.mktemp("slow"))


@pytest.fixture
def stand(tmp_path: Path, apache_kafka: KafkaCluster, slow_bundle: Bundle) -> Iterator[Stand]:
    with ExitStack() as stack:
        yield Stand(tmp_path, apache_kafka.brokers, slow_bundle, stack)


@pytest.mark.parametrize("tiers", SETUPS.values(), ids=SETUPS)
def test_offered_three_times_what_it_can_do_a_tier_answers_everything_from_its_own_exit_and_recovers(stand, tiers):
    found = Overload(stand, tiers).run(SECONDS)
    assert not found.broken()
    shed = "edge overload" if len(tiers) == 1 else "edge rejected"
    assert found.reasons[shed] > 0
    assert found.reasons["cloud final"] > 0, "what it can do is done all the same"
