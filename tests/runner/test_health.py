from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from memory_cascade import MemoryCascade, ToyEngine, sample

from branchy.core.wire import MAX_BUDGET_MS
from branchy.runner import health as health_module
from branchy.runner.health import BATCH_S, Health


@pytest.fixture
def cascade() -> Iterator[MemoryCascade]:
    cascade = MemoryCascade()
    yield cascade
    cascade.close()


def test_before_it_runs_a_tier_is_alive_and_says_what_it_waits_for():
    health = Health()
    assert health.alive() == (True, "alive: waits for its bundle")
    health.waits_for("the back's brokers")
    assert health.ready() == (False, "not ready: waits for the back's brokers")
    assert health.snapshot() is None


def test_a_running_tier_is_alive_and_ready(cascade):
    health = cascade.start("edge").health()
    assert health.alive() == (True, "alive")
    assert health.ready() == (True, "ready")


def test_a_tier_that_is_stuck_in_a_turn_is_neither_alive_nor_ready(cascade, monkeypatch):
    monkeypatch.setattr(health_module, "LOOK_S", 0.01)
    edge = cascade.start("edge")
    health = edge.health()
    with edge.tier._turn:
        assert (health.alive().ok, health.ready().ok) == (False, False)
        assert "ended no turn within 0.01 s" in health.alive().line
    assert health.alive().ok


def test_a_tier_whose_model_never_comes_back_is_neither_alive_nor_ready(cascade, monkeypatch):
    edge = cascade.start("edge")
    health = edge.health()
    cascade.ask(sample(0, ToyEngine.HOLD), to="edge")
    assert cascade.computing.wait(20)
    assert health.alive() == (True, "alive"), "a batch may take its time"
    with monkeypatch.context() as later:
        later.setattr(edge.executor, "_clock", lambda: time.monotonic() + BATCH_S + 1)
        why = "the model has been running one batch for 91 s, expected at most 90"
        assert health.alive() == (False, f"stuck: {why}")
        assert health.ready() == (False, f"not ready: {why}")
    cascade.hold.set()
    cascade.answer()
    assert (health.alive().ok, health.ready().ok) == (True, True)


def test_no_batch_whose_answer_somebody_may_still_wait_for_is_taken_for_stuck():
    assert 3 * MAX_BUDGET_MS / 1e3 <= BATCH_S < 10 * MAX_BUDGET_MS / 1e3


def test_it_is_not_ready_while_the_backs_brokers_are_away_and_ready_again_afterwards(cascade):
    health = cascade.start("cloud").health()
    cascade.broker.take_down()
    assert health.ready() == (False, "not ready: the back's brokers cannot be reached")
    assert health.alive().ok, "a restart brings no broker back"
    cascade.broker.bring_up()
    assert health.ready().ok


def test_without_the_fronts_brokers_it_is_ready_and_says_so(cascade):
    edge = cascade.start("edge")
    health = edge.health()
    edge.tier.links_up["front"] = False
    assert health.ready() == (True, "ready; the front's brokers cannot be reached, its own exit answers")


def test_it_is_not_ready_before_it_has_its_share_or_while_its_producer_connects(cascade):
    edge = cascade.start("edge")
    health = edge.health()
    edge.back.sender.wait_ready = lambda timeout_s: False
    assert "producer" in health.ready().line
    edge.back.source.wait_ready = lambda timeout_s: False
    assert "share of the requests" in health.ready().line
    assert not health.ready().ok


def test_told_to_stop_it_is_alive_and_not_ready(cascade):
    edge = cascade.start("edge")
    health = edge.health()
    edge.stop()
    assert health.ready() == (False, "not ready: told to stop, it settles what is under way")
    assert health.alive().ok


def test_a_snapshot_has_what_waits_to_be_computed(cascade):
    health = cascade.start("edge").health()
    cascade.ask(sample(0, ToyEngine.HOLD), to="edge")
    assert cascade.computing.wait(20)
    cascade.ask(sample(0), to="edge")
    found = health.snapshot()
    assert found is not None
    assert (found.waiting, found.unsettled, found.pending) == (1, 2, 0)
    assert found.oldest_waiting_s > 0
    assert found.batch_s > 0


def test_a_snapshot_has_what_waits_for_the_front_and_what_was_answered(cascade):
    health = cascade.start("edge").health()
    cascade.ask(sample(2), to="edge")  # goes up, where nobody is
    cascade.ask(sample(0), to="edge")
    assert cascade.answer()[1].reason == "confident"
    found = health.snapshot()
    assert found is not None
    assert (found.pending, found.waiting, found.oldest_waiting_s, found.batch_s) == (1, 0, 0.0, 0.0)
    assert not found.breaker_open
    assert (found.counters["came"], found.counters["answer.confident"], found.latency_counts[-1]) == (2, 1, 1)
