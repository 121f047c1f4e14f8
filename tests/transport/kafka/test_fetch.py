"""Getting past what cannot be read, in few fetches and never past what can."""

from __future__ import annotations

import math

import pytest
from confluent_kafka import KafkaError, KafkaException
from fake_kafka import TOPIC, FakeConsumer, FakeMessage
from hypothesis import given
from hypothesis import strategies as st

from branchy.errors import RefusedError
from branchy.transport.kafka.fetch import Fetcher, Unreadable, received_headers

UNREADABLE = KafkaError._BAD_COMPRESSION


class Log(FakeConsumer):
    """A partition with unreadable batches; like librdkafka it reports one at its first offset, wherever one seeks."""

    def __init__(self, batches: list[tuple[int, bool]]) -> None:
        super().__init__()
        self.at = self.fetches = 0
        self.behind: list[FakeMessage] = []
        self.batches: list[tuple[int, int, bool]] = []
        start = 0
        for length, readable in batches:
            self.batches.append((start, start + length, readable))
            start += length
        self.watermarks = {0: (0, start)}

    def poll(self, timeout_s: float) -> FakeMessage | None:
        if self.behind:
            return self.behind.pop(0)
        for start, end, readable in self.batches:
            if start <= self.at < end:
                self.fetches += 1
                if not readable:
                    return FakeMessage(start, error=UNREADABLE)
                self.at += 1
                return FakeMessage(self.at - 1)
        return None

    def consume(self, count: int, timeout_s: float) -> list[FakeMessage]:
        """What was fetched ahead; an unreadable batch is reported again and again until somebody seeks."""
        ahead = [message for message in (self.poll(0.0) for _ in range(min(count, 3))) if message is not None]
        for number, message in enumerate(ahead):
            if message.error() is not None:
                self.at = message.offset() if self.at < message.offset() else self.at
                return ahead[: number + 2]
        return ahead

    def seek(self, partition) -> None:
        self.at = partition.offset


def read(log: Log, fetcher: Fetcher) -> list[FakeMessage | Unreadable]:
    """All that is handed on, as a consumer's thread fetches it."""
    found = []
    while (first := fetcher.first(0.0)) is not None:
        found.append(fetcher.sift(first))
        found += [fetcher.sift(message) for message in fetcher.rest()]
    return [each for each in found if each is not None]


@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=8))
def test_every_readable_offset_is_handed_on_and_every_unreadable_batch_is_passed_once(batches):
    log = Log(batches)
    found = read(log, Fetcher(log, "back"))
    readable = [offset for start, end, good in log.batches for offset in range(start, end) if good]
    passed = [(start, end - 1) for start, end, good in log.batches if not good]
    assert [each.offset() for each in found if isinstance(each, FakeMessage)] == readable
    assert [(each.first, each.last) for each in found if isinstance(each, Unreadable)] == passed


@pytest.mark.parametrize("count", [1, 2, 1_000, 100_000])
def test_a_batch_costs_fetches_by_the_logarithm_of_its_records(count: int):
    log = Log([(count, False), (1_000_000, True)])
    fetcher = Fetcher(log, "back")
    passed = None
    while passed is None:
        passed = fetcher.sift(fetcher.first(0.0))
    assert (passed.first, passed.last, log.at) == (0, count - 1, count)
    assert log.fetches <= 2 * math.log2(count) + 3


@pytest.mark.parametrize(("last", "where"), [(5, f"{TOPIC} [0] offset 5"), (7, f"{TOPIC} [0] offsets 5 to 7")])
def test_it_says_where_a_batch_lies(last: int, where: str):
    assert str(Unreadable(TOPIC, 0, 5, last, "why")) == where


def test_after_a_new_assignment_a_search_begins_anew():
    log = Log([(3, False), (2, True)])
    fetcher = Fetcher(log, "back")
    assert fetcher.sift(fetcher.first(0.0)) is None
    log.at = 0
    fetcher.restart([(TOPIC, 0)])
    (passed, *good) = read(log, fetcher)
    assert (passed.first, passed.last) == (0, 2)
    assert [message.offset() for message in good] == [3, 4]


def test_another_error_in_between_says_nothing_of_where_a_batch_ends():
    log = Log([(3, False), (2, True)])
    fetcher = Fetcher(log, "back")
    assert fetcher.sift(fetcher.first(0.0)) is None
    log.behind = [FakeMessage(-1001, error=KafkaError.NOT_LEADER_FOR_PARTITION)]
    (passed, *good) = read(log, fetcher)
    assert (passed.last, len(good)) == (2, 2)


@pytest.mark.parametrize(("code", "offset"), [(KafkaError.UNKNOWN_TOPIC_OR_PART, 5), (UNREADABLE, -1001)])
def test_errors_that_are_not_of_a_message_give_nothing_up(code: int, offset: int):
    consumer = FakeConsumer()
    assert Fetcher(consumer, "back").sift(FakeMessage(offset, error=code)) is None
    assert consumer.calls == []


def test_where_nobody_tells_the_end_of_the_partition_nothing_is_given_up(monkeypatch):
    consumer = FakeConsumer()
    monkeypatch.setattr("branchy.transport.kafka.fetch.ASK_TIMEOUT_S", 0.0)
    monkeypatch.setattr(consumer, "get_watermark_offsets", _raise)
    assert Fetcher(consumer, "back").sift(FakeMessage(5, error=UNREADABLE)) is None
    assert consumer.calls == []


def test_a_partition_that_is_not_ours_any_more_gives_nothing_up(monkeypatch):
    consumer = FakeConsumer()
    consumer.watermarks = {0: (0, 6)}
    monkeypatch.setattr(consumer, "seek", _raise)
    assert Fetcher(consumer, "back").sift(FakeMessage(5, error=UNREADABLE)) is None


def test_trouble_of_the_client_is_logged_once_in_a_while_and_gives_nothing(monkeypatch, caplog):
    consumer = FakeConsumer()
    monkeypatch.setattr(consumer, "poll", _raise)
    monkeypatch.setattr(consumer, "consume", _raise)
    fetcher = Fetcher(consumer, "back")
    assert fetcher.first(0.0) is None
    assert fetcher.rest() == []
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("code", [KafkaError._FATAL, KafkaError.INVALID_SESSION_TIMEOUT])
def test_an_error_after_which_nothing_comes_is_a_refusal(code: int):
    with pytest.raises(RefusedError, match="back: the brokers refuse this consumer"):
        Fetcher(FakeConsumer(), "back").sift(FakeMessage(-1001, error=code))


def _raise(*_, **__) -> None:
    raise KafkaException(KafkaError(KafkaError._STATE))


def test_an_error_of_another_kind_than_a_headers_name_is_not_taken_for_one():
    with pytest.raises(SystemError, match="something else"):
        received_headers(FakeMessage(0, headers=SystemError("something else")))
    assert received_headers(FakeMessage(0, headers=[("a", None)])) == [("a", None)]
    assert list(received_headers(FakeMessage(0)) or ()) == []
