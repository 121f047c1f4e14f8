"""What a lag is made of, on a consumer that says what it is told."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException
from fake_kafka import TOPIC, FakeConsumer

from branchy.transport.kafka import lag as lag_module
from branchy.transport.kafka.addresses import Assignment
from branchy.transport.kafka.lag import ASK_EVERY_S, LagReader

ONE, TWO = Assignment(TOPIC, 0, 1), Assignment(TOPIC, 1, 1)
AWAY = KafkaError(KafkaError.LEADER_NOT_AVAILABLE)


class Clock:
    now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(lag_module, "time", clock)
    return clock


@pytest.fixture
def consumer(clock) -> FakeConsumer:
    return FakeConsumer()


@pytest.fixture
def reader(consumer) -> LagReader:
    return LagReader(consumer)


def test_it_is_what_the_last_fetches_said_less_what_was_taken_and_asks_no_broker(reader, consumer):
    consumer.watermarks = {0: (0, 30), 1: (0, 8)}
    consumer.positions = {0: 20, 1: 8}
    assert reader.read([ONE, TWO], paused=False) == 10
    assert consumer.calls == []


def test_a_member_without_a_share_has_none(reader):
    assert reader.read([], paused=False) == 0


def test_it_is_not_known_before_each_partition_was_fetched_once(reader, consumer):
    consumer.positions, consumer.stored = {0: 20}, {1: 5}
    consumer.watermarks = {0: (0, 30)}
    assert reader.read([ONE, TWO], paused=False) is None
    consumer.watermarks[1] = (0, 9)
    assert reader.read([ONE, TWO], paused=False) == 14


def test_where_nothing_was_taken_yet_it_counts_from_what_was_committed_asked_once_an_assignment(reader, consumer):
    consumer.watermarks, consumer.stored = {0: (0, 30)}, {0: 25}
    assert [reader.read([ONE], paused=False) for _ in range(3)] == [5] * 3
    assert consumer.named("committed") == [[0]]


def test_a_partition_that_comes_back_is_asked_for_again(reader, consumer, clock):
    consumer.watermarks, consumer.stored = {0: (0, 30)}, {0: 25}
    reader.read([ONE], paused=False)
    clock.now_s += ASK_EVERY_S
    consumer.stored = {0: 28}
    assert reader.read([ONE._replace(epoch=2)], paused=False) == 2


@pytest.mark.parametrize("stored", [{}, {0: 3}])
def test_what_retention_has_removed_is_not_waited_for(reader, consumer, stored):
    consumer.watermarks, consumer.stored = {0: (10, 30)}, stored
    assert reader.read([ONE], paused=False) == 20


def test_a_paused_partitions_end_is_asked_for_and_not_more_than_once_a_second(reader, consumer, clock):
    consumer.watermarks, consumer.positions, consumer.ends = {0: (0, 30)}, {0: 30}, {0: 50}
    assert [reader.read([ONE], paused=True) for _ in range(3)] == [20] * 3
    consumer.ends = {0: 60}
    clock.now_s += ASK_EVERY_S
    assert reader.read([ONE], paused=True) == 30
    assert consumer.named("ask") == [[0], [0]]


def test_after_a_pause_the_fetches_tell_again(reader, consumer):
    consumer.watermarks, consumer.positions, consumer.ends = {0: (0, 30)}, {0: 30}, {0: 50}
    reader.read([ONE], paused=True)
    consumer.watermarks, consumer.positions = {0: (0, 40)}, {0: 40}
    assert reader.read([ONE], paused=False) == 0


def test_a_beginning_that_the_brokers_do_not_tell_is_not_taken_for_the_partitions_own(reader, consumer):
    consumer.watermarks, consumer.stored = {0: (0, 30)}, {0: AWAY}
    assert reader.read([ONE], paused=False) is None


def test_an_end_that_the_brokers_do_not_tell_is_not_known(reader, consumer):
    consumer.positions, consumer.ends = {0: 20}, {0: AWAY}
    assert reader.read([ONE], paused=True) is None


def test_brokers_that_do_not_answer_are_asked_again_a_second_later(reader, consumer, clock, monkeypatch):
    def fail(partitions, timeout):
        consumer.calls.append(("failed", timeout))
        raise KafkaException(AWAY)

    consumer.watermarks, consumer.stored = {0: (0, 30)}, {0: 25}
    with monkeypatch.context() as away:
        away.setattr(consumer, "committed", fail)
        assert [reader.read([ONE], paused=False) for _ in range(3)] == [None] * 3
    assert len(consumer.named("failed")) == 1
    clock.now_s += ASK_EVERY_S
    assert reader.read([ONE], paused=False) == 5
