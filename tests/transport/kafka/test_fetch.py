"""Getting past what cannot be read, one offset at a time and never past what can."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException
from fake_kafka import TOPIC, FakeConsumer, FakeMessage
from hypothesis import given
from hypothesis import strategies as st

from branchy.transport.kafka.fetch import Fetcher

UNREADABLE = KafkaError._BAD_COMPRESSION


class Log(FakeConsumer):
    """A partition with unreadable batches; like librdkafka it reports one at its first offset, wherever one seeks."""

    def __init__(self, batches: list[tuple[int, bool]]) -> None:
        super().__init__()
        self.at = 0
        self.batches: list[tuple[int, int, bool]] = []
        start = 0
        for length, readable in batches:
            self.batches.append((start, start + length, readable))
            start += length

    def fetch(self) -> FakeMessage | None:
        for start, end, readable in self.batches:
            if start <= self.at < end:
                if not readable:
                    return FakeMessage(start, error=UNREADABLE)
                self.at += 1
                return FakeMessage(self.at - 1)
        return None

    def seek(self, partition) -> None:
        self.at = partition.offset


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=8), st.data())
def test_every_offset_is_read_or_given_up_exactly_once(batches, data):
    log = Log(batches)
    fetcher = Fetcher(log, "back")
    read, given_up = [], []
    while (message := log.fetch()) is not None:
        if message.error() is None:
            read.append(message.offset())
        else:
            given_up.append(fetcher.skip(message))
    readable = [offset for start, end, good in log.batches for offset in range(start, end) if good]
    unreadable = [offset for start, end, good in log.batches for offset in range(start, end) if not good]
    assert (read, given_up) == (readable, unreadable)


def test_after_a_new_assignment_an_unreadable_batch_is_passed_from_its_start_again():
    log = Log([(3, False), (2, True)])
    fetcher = Fetcher(log, "back")
    for _ in range(3):
        fetcher.skip(log.fetch())
    log.at = 0
    fetcher.restart([(TOPIC, 0)])
    assert [fetcher.skip(log.fetch()) for _ in range(3)] == [0, 1, 2]
    assert log.fetch().offset() == 3


@pytest.mark.parametrize(("code", "offset"), [(KafkaError.UNKNOWN_TOPIC_OR_PART, 5), (UNREADABLE, -1001)])
def test_errors_that_are_not_of_a_message_give_nothing_up(code: int, offset: int):
    consumer = FakeConsumer()
    assert Fetcher(consumer, "back").skip(FakeMessage(offset, error=code)) is None
    assert consumer.calls == []


def test_a_partition_that_is_not_ours_any_more_gives_nothing_up(monkeypatch):
    consumer = FakeConsumer()
    monkeypatch.setattr(consumer, "seek", _raise)
    assert Fetcher(consumer, "back").skip(FakeMessage(5, error=UNREADABLE)) is None


def test_trouble_of_the_client_is_logged_once_in_a_while_and_gives_nothing(monkeypatch, caplog):
    consumer = FakeConsumer()
    monkeypatch.setattr(consumer, "poll", _raise)
    monkeypatch.setattr(consumer, "consume", _raise)
    fetcher = Fetcher(consumer, "back")
    assert fetcher.first(0.0) is None
    assert fetcher.rest() == []
    assert len(caplog.messages) == 1


def _raise(*_) -> None:
    raise KafkaException(KafkaError(KafkaError._STATE))
