"""Topics on a real Apache Kafka."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic
from transport_harness import Events, fresh_name, kafka_settings, message

from branchy.errors import BrokerUnavailableError, TransportError
from branchy.transport.base import Message, Sent
from branchy.transport.kafka import KafkaLink
from branchy.transport.kafka import topics as topics_module
from branchy.transport.kafka.topic_settings import settings_for
from branchy.transport.kafka.topics import ENVELOPE_BYTES, create_missing, default_copies, read_settings

WAIT_S = 20.0
LARGEST_BYTES = 3_000_000


@pytest.fixture
def link(real_brokers) -> Iterator[KafkaLink]:
    with closing(KafkaLink(kafka_settings(real_brokers), "back")) as link:
        yield link


@pytest.fixture
def queue() -> str:
    return f"{fresh_name()}.edge.requests"


def foreign(brokers: str, name: str, **config: str) -> None:
    """A topic that somebody else made."""
    admin = AdminClient({"bootstrap.servers": brokers})
    admin.create_topics([NewTopic(name, 1, config=config)])[name].result(WAIT_S)


def create(link: KafkaLink, name: str, partitions: int = 3) -> list[str]:
    return link.create_topics({name: LARGEST_BYTES}, partitions=partitions, replication=1, timeout_s=WAIT_S)


def test_what_is_there_already_and_fits_is_left(link, queue):
    assert create(link, queue) == [queue]
    assert create(link, queue) == []
    assert create(link, queue, partitions=2) == []


def test_a_topic_that_is_there_and_does_not_fit_is_named_with_all_that_differs(link, queue, real_brokers):
    foreign(real_brokers, queue, **{"max.message.bytes": "700000"})
    with pytest.raises(TransportError) as error:
        create(link, queue)
    text = str(error.value)
    assert text.startswith(f"topic {queue}: ")
    for said in (
        "max.message.bytes is 700000",
        "CreateTime, expected LogAppendTime",
        "has 1 partitions, expected at least 3",
    ):
        assert said in text


def test_too_few_copies_are_named_with_how_many_were_asked_for(link, queue):
    create(link, queue)
    with pytest.raises(TransportError, match=f"topic {queue}: it has 1 copies of each message, expected at least 3;"):
        link.create_topics({queue: LARGEST_BYTES}, partitions=1, replication=3, timeout_s=WAIT_S)


def test_without_a_number_of_copies_a_topic_is_held_against_what_the_brokers_make_now(link, queue, monkeypatch):
    create(link, queue)
    assert link.create_topics({queue: LARGEST_BYTES}, partitions=1, replication=None, timeout_s=WAIT_S) == []
    monkeypatch.setattr(topics_module, "default_copies", lambda *_: 3)
    with pytest.raises(TransportError, match="has 1 copies of each message, expected at least 3"):
        link.create_topics({queue: LARGEST_BYTES}, partitions=1, replication=None, timeout_s=WAIT_S)


def test_brokers_that_do_not_tell_how_many_copies_they_make_are_not_asked_twice():
    assert default_copies(ForgetfulAdmin(1), [1], 0.0) is None
    assert default_copies(ForgetfulAdmin(0), [1], 0.0) is None


def test_the_embedded_broker_takes_no_settings(embedded_broker, queue):
    with closing(KafkaLink(kafka_settings(embedded_broker.brokers), "back")) as link:
        link.prepare([queue], WAIT_S)
        with pytest.raises(TransportError, match="makes them itself"):
            create(link, queue)


def test_more_copies_than_there_are_brokers_is_told(link, queue):
    with pytest.raises(TransportError, match=f"topic {queue} is not there and cannot be made"):
        link.create_topics({queue: 0}, partitions=1, replication=9, timeout_s=WAIT_S)


class SlowAdmin:
    """Of brokers that take a topic, or fail to, and have no leader for it."""

    def __init__(self, error: int | None = None) -> None:
        self.error = error

    def create_topics(self, topics: list[NewTopic], **_: float) -> dict[str, Future[None]]:
        future = Future[None]()
        future.set_exception(KafkaException(KafkaError(self.error))) if self.error else future.set_result(None)
        return {topics[0].topic: future}

    def list_topics(self, **_: float) -> SimpleNamespace:
        topic = SimpleNamespace(error=None, partitions={0: SimpleNamespace(leader=-1)})
        return SimpleNamespace(topics={"slow": topic})


@pytest.mark.parametrize("error", [None, KafkaError._TIMED_OUT, KafkaError.NOT_CONTROLLER])
def test_brokers_that_only_take_their_time_are_tried_again(error):
    """A tier ends on any other error; it waits for brokers that are not available."""
    with pytest.raises(BrokerUnavailableError, match="topic slow"):
        create_missing(SlowAdmin(error), {"slow": 0}, {}, deadline_s=0.0)


class PatchyAdmin(SlowAdmin):
    """Of brokers that learn of new topics at different times; each look asks another."""

    def __init__(self, *known: str) -> None:
        super().__init__(KafkaError.TOPIC_ALREADY_EXISTS)  # another tier was quicker
        self.known = iter(known)

    def list_topics(self, **_: float) -> SimpleNamespace:
        topic = SimpleNamespace(error=None, partitions={0: SimpleNamespace(leader=1)})
        return SimpleNamespace(topics=dict.fromkeys(next(self.known), topic))


def test_topics_are_there_once_one_broker_knows_them_all_and_what_it_says_is_taken():
    """A tier ended at its start, as the next broker that it asked did not know a topic yet."""
    admin = PatchyAdmin("a", "b", "", "ab", "a", "")
    created, metadata = create_missing(admin, {"a": 0, "b": 0}, {}, deadline_s=time.monotonic() + WAIT_S)
    assert (created, set(metadata.topics)) == ([], {"a", "b"})


class ForgetfulAdmin:
    """Of brokers of which the first that are asked do not know a topic yet."""

    def __init__(self, unknown: int) -> None:
        self.unknown = unknown

    def describe_configs(self, resources: list[ConfigResource], **_: float) -> dict[ConfigResource, Future[dict]]:
        future = Future[dict]()
        if self.unknown:
            self.unknown -= 1
            future.set_exception(KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)))
        else:
            future.set_result({"max.message.bytes": SimpleNamespace(value="3000000")})
        return {resources[0]: future}


def test_settings_of_a_topic_that_was_just_made_are_asked_for_until_a_broker_knows_it(caplog):
    until_s = time.monotonic() + WAIT_S
    assert read_settings(ForgetfulAdmin(3), ["new"], until_s) == {"new": {"max.message.bytes": "3000000"}}
    assert not caplog.records
    assert read_settings(ForgetfulAdmin(3), ["none"], 0.0) == {}
    assert "topic none: its settings cannot be read" in caplog.records[0].getMessage()


def test_a_tier_makes_room_for_its_largest_tensor_and_for_several_of_it_at_once(link, queue):
    limits = link.prepare([queue], WAIT_S, {queue: LARGEST_BYTES})
    assert limits[queue] > LARGEST_BYTES
    events = Events()
    with closing(link.sender(events, message_timeout_s=20, queue_limit=10)) as sender:
        for number in range(3):
            assert sender.send(link.queue(queue), message("x" * LARGEST_BYTES), number)
        assert [sent.error for sent in events.wait(Sent, 3)] == [None] * 3


def test_answers_go_through_in_batches_where_a_topic_takes_less_than_it_should(link, queue, real_brokers):
    """All at once, as after a stall: a batch that is too large is refused for good, with every answer in it."""
    inbox, count = queue.replace(".requests", ".answers"), 1_000
    foreign(real_brokers, inbox, **{**settings_for(inbox, 0), "max.message.bytes": "70000"})
    link.prepare([queue], WAIT_S)
    events = Events()
    with closing(link.sender(events, message_timeout_s=20, queue_limit=count, to_unprepared=True)) as sender:
        for number in range(count):
            assert sender.send(link.queue(inbox), message("x" * 1_000), number)
        assert {sent.error for sent in events.wait(Sent, count)} == {None}


def test_what_fills_a_requests_topic_to_the_byte_fits_the_dead_letters_with_why_it_is_there(link, queue):
    dead = queue.replace(".requests", ".dead")
    limit_bytes = link.prepare([queue, dead], WAIT_S)[queue]
    events, tags = Events(), itertools.count()
    with closing(link.sender(events, message_timeout_s=20, queue_limit=10)) as sender:

        def fits(topic: str, size_bytes: int, *headers: tuple[str, bytes]) -> bool:
            tag = next(tags)
            assert sender.send(link.queue(topic), Message(headers, bytes(size_bytes)), tag)
            (sent,) = [each for each in events.wait(Sent, tag + 1) if each.tag == tag]
            return sent.error is None

        fitting, too_large = limit_bytes, limit_bytes + ENVELOPE_BYTES
        while too_large - fitting > 1:
            middle = (fitting + too_large) // 2
            fitting, too_large = (middle, too_large) if fits(queue, middle) else (fitting, middle)
        assert limit_bytes < fitting, "nothing was over the limit that is told"
        why = [("branchy-error-code", b"not-finite"), ("branchy-error", b"x" * 1000), ("branchy-tier", b"x" * 249)]
        assert fits(dead, fitting, *why)


def test_a_tier_says_once_what_differs_and_works_with_what_there_is(link, queue, real_brokers, caplog):
    foreign(real_brokers, queue, **{**settings_for(queue, 0), "message.timestamp.type": "CreateTime"})
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert link.prepare([queue], WAIT_S)[queue] > 1_000_000
    said = [record.getMessage() for record in caplog.records if queue in record.getMessage()]
    assert said == [f"back: topic {queue}: message.timestamp.type is CreateTime, expected LogAppendTime"]


def test_a_tier_does_not_complain_of_fewer_partitions_which_are_the_operators_to_choose(link, queue, caplog):
    create(link, queue, partitions=4)
    with caplog.at_level(logging.WARNING):
        link.prepare([queue], WAIT_S)
    assert not [record for record in caplog.records if queue in record.getMessage()]
