"""Rebalances, commits, pauses and ages, one rule a test, on a consumer that does what it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, KafkaError, KafkaException
from fake_kafka import TOPIC, FakeCluster, FakeConsumer, FakeMessage
from raw_produce import produce_named
from transport_harness import Events, fresh_name, kafka_settings, message

from branchy.config import LinkSettings
from branchy.errors import RefusedError, TransportError
from branchy.transport.base import Arrived, Failed, Message, Revoked
from branchy.transport.kafka import KafkaLink
from branchy.transport.kafka import source as source_module
from branchy.transport.kafka.addresses import KafkaAddress
from branchy.transport.kafka.source import KafkaSource


class Bench:
    def __init__(self, **settings):
        self.consumer = FakeConsumer()
        self.cluster = FakeCluster(self.consumer, **settings)
        self.events = Events(self._on_event)
        self.on_revoked = lambda revoked: revoked.done.set()
        self.source = KafkaSource(self.cluster, TOPIC, "edge", self.events)
        self.source.start()

    def _on_event(self, event) -> None:
        if isinstance(event, Revoked):
            self.on_revoked(event)

    def turn(self, *turns) -> None:
        """Let the consumer's thread take these, and wait until it has and is back."""
        done = threading.Event()
        for turn in turns:
            self.consumer.turns.put(turn)
        self.consumer.turns.put(done.set)
        assert done.wait(10)

    def assign(self, *partitions: int) -> None:
        self.turn(lambda: self.consumer.assign_now(*partitions))

    def revoke(self, *partitions: int) -> None:
        self.turn(lambda: self.consumer.revoke_now(*partitions))

    def settle(self, *offsets: int) -> None:
        for delivery in self.events.deliveries():
            if delivery.token.offset in offsets:
                self.source.settle(delivery.token)

    def offsets(self) -> list[int]:
        return [delivery.token.offset for delivery in self.events.deliveries()]


@pytest.fixture
def bench(monkeypatch) -> Iterator[Bench]:
    monkeypatch.setattr(source_module, "COMMIT_EVERY_S", 3600.0)
    bench = Bench()
    yield bench
    bench.source.close()


def test_it_is_ready_with_its_first_assignment_even_an_empty_one(bench: Bench):
    assert not bench.source.wait_ready(0)
    bench.assign()
    assert bench.source.wait_ready(0)


def test_a_member_of_the_consumer_protocol_without_a_share_is_ready_when_its_join_state_is_steady():
    bench = Bench(group_protocol="consumer")
    on_statistics = bench.cluster.configs[0]["stats_cb"]
    on_statistics(json.dumps({"cgrp": {"join_state": "init"}}))
    on_statistics(json.dumps({}))
    assert not bench.source.wait_ready(0)
    on_statistics(json.dumps({"cgrp": {"join_state": "steady"}}))
    assert bench.source.wait_ready(0)
    bench.source.close()


def test_the_group_protocol_is_classic_unless_the_brokers_are_embedded_or_the_settings_say_otherwise():
    for settings, embedded, expected in (
        ({}, False, "classic"),
        ({}, True, "consumer"),
        ({"group_protocol": "consumer"}, False, "consumer"),
        ({"group_protocol": "classic"}, True, "classic"),
    ):
        cluster = FakeCluster(FakeConsumer(), **settings)
        cluster.embedded = embedded
        KafkaSource(cluster, TOPIC, "edge", Events())
        config = cluster.configs[0]
        assert config["group.protocol"] == expected
        assert config.get("fetch.wait.max.ms") == (1 if embedded else None)
        assert ("session.timeout.ms" in config) == (expected == "classic")  # refused by the consumer protocol


def test_what_is_there_already_comes_with_the_first(bench: Bench):
    bench.assign(0)
    bench.consumer.rest = [FakeMessage(6), FakeMessage(7)]
    bench.turn(FakeMessage(5))
    (arrived,) = bench.events.of(Arrived)
    assert [delivery.message.body for delivery in arrived.deliveries] == [b"5", b"6", b"7"]


@pytest.mark.parametrize(
    ("value", "headers"),
    [(bytes(901), [("h" * 50, b"v" * 50)]), (b"", [("h", b"v" * 1000)]), (b"", [("h" * 1001, None)])],
)
def test_what_expands_to_more_than_its_topic_takes_is_handed_on_by_its_coordinates_alone(bench, value, headers):
    bench.cluster._limits[TOPIC] = 1000
    bench.assign(0)
    reply = [("kafka_replyTopic", b"branchy.c.device.answers"), ("kafka_correlationId", b"c")]
    bench.turn(FakeMessage(5, value=value, headers=headers if value else [*headers, *reply]), FakeMessage(6))
    large, small = bench.events.deliveries()
    assert large.message == Message((), b"")
    assert (large.reply_to, large.correlation) == (None, None)
    assert large.fault is not None
    assert large.fault.startswith(f"{TOPIC} [0] offset 5 is left out: it expands to 10")
    assert small.fault is None
    bench.settle(5, 6)
    bench.revoke(0)
    assert bench.consumer.named("commit") == [{0: 7}]


@pytest.mark.parametrize("limit_bytes", [1000, None])
def test_what_fills_its_topic_to_the_byte_is_handed_on_whole(bench, limit_bytes):
    if limit_bytes is not None:
        bench.cluster._limits[TOPIC] = limit_bytes
    bench.assign(0)
    bench.turn(FakeMessage(5, value=bytes(900), headers=[("h" * 50, b"v" * 50)]))
    (delivery,) = bench.events.deliveries()
    assert (delivery.fault, len(delivery.message.body)) == (None, 900)


def test_a_commit_stops_at_the_lowest_unsettled_offset(bench: Bench):
    bench.assign(0)
    bench.turn(FakeMessage(5), FakeMessage(6), FakeMessage(7))
    bench.settle(5, 7)
    bench.revoke(0)
    assert bench.consumer.named("commit") == [{0: 6}]


def test_nothing_is_committed_while_the_first_is_unsettled(bench: Bench):
    bench.assign(0)
    bench.turn(FakeMessage(5), FakeMessage(6))
    bench.settle(6)
    bench.revoke(0)
    assert bench.consumer.named("commit") == []


def test_settled_offsets_are_committed_in_passing_and_once(monkeypatch):
    monkeypatch.setattr(source_module, "COMMIT_EVERY_S", 0.0)
    bench = Bench()
    bench.assign(0)
    bench.turn(FakeMessage(5), FakeMessage(6))
    bench.settle(5)
    bench.turn()
    bench.turn()
    bench.settle(6)
    bench.turn()
    bench.source.close()
    assert bench.consumer.named("commit") == [{0: 6}, {0: 7}]


def test_a_failed_commit_is_repeated(monkeypatch):
    monkeypatch.setattr(source_module, "COMMIT_EVERY_S", 0.0)
    bench = Bench()
    bench.assign(0)
    bench.turn(FakeMessage(5))
    bench.settle(5)
    bench.turn()
    bench.turn(lambda: bench.cluster.configs[0]["on_commit"](KafkaError(KafkaError.REBALANCE_IN_PROGRESS), []))
    bench.turn()
    bench.source.close()
    assert bench.consumer.named("commit") == [{0: 6}, {0: 6}]


def test_revoked_tokens_are_told_and_what_is_settled_meanwhile_is_committed_before_they_go(bench: Bench):
    bench.assign(0, 1)
    bench.turn(FakeMessage(5), FakeMessage(6), FakeMessage(9, partition=1))

    def answer(revoked: Revoked) -> None:
        for token in revoked.tokens:
            bench.source.settle(token)
        revoked.done.set()

    bench.on_revoked = lambda revoked: threading.Timer(0.05, answer, [revoked]).start()  # as a tier does, elsewhere
    bench.revoke(0)
    (revoked,) = bench.events.of(Revoked)
    assert sorted(token.offset for token in revoked.tokens) == [5, 6]
    assert not revoked.lost
    assert bench.consumer.calls[-2:] == [("commit", {0: 7}), ("unassign", [0])]
    assert bench.source.unsettled() == 1


def test_a_tier_that_does_not_say_done_is_waited_for_no_longer_than_the_limit(bench: Bench, monkeypatch):
    monkeypatch.setattr(source_module, "REVOKE_WAIT_S", 0.01)
    bench.on_revoked = lambda revoked: None
    bench.assign(0)
    bench.turn(FakeMessage(5))
    bench.revoke(0)
    assert bench.consumer.named("unassign") == [[0]]
    assert bench.source.unsettled() == 0


def test_nothing_unsettled_means_no_revoked_event(bench: Bench):
    bench.assign(0)
    bench.turn(FakeMessage(5))
    bench.settle(5)
    bench.revoke(0)
    assert bench.events.of(Revoked) == []
    assert bench.consumer.named("commit") == [{0: 6}]


def test_lost_partitions_are_told_without_waiting_and_never_committed(bench: Bench):
    bench.on_revoked = lambda revoked: None
    bench.assign(0)
    bench.turn(FakeMessage(5), FakeMessage(6))
    bench.settle(5)
    bench.turn(lambda: bench.consumer.lose_now(0))
    (revoked,) = bench.events.of(Revoked)
    assert revoked.lost
    assert [token.offset for token in revoked.tokens] == [6]
    assert bench.consumer.named("commit") == []
    assert bench.source.unsettled() == 0


def test_a_token_of_an_earlier_assignment_settles_nothing_in_a_later_one(bench: Bench):
    bench.assign(0)
    bench.turn(FakeMessage(5))
    (early,) = bench.events.deliveries()
    bench.revoke(0)
    bench.assign(0)
    bench.turn(FakeMessage(5))
    bench.source.settle(early.token)
    assert bench.source.unsettled() == 1
    bench.revoke(0)
    assert bench.consumer.named("commit") == []


def test_a_message_fetched_before_its_partition_was_taken_away_is_not_handed_on(bench: Bench):
    bench.assign(0, 1)
    bench.consumer.rest = [lambda: bench.consumer.revoke_now(0), FakeMessage(9, partition=1)]
    bench.turn(FakeMessage(5))
    assert bench.offsets() == [9]


def test_a_partition_that_comes_back_within_one_fetch_is_not_committed_past_what_comes_again(bench: Bench):
    bench.assign(0)
    bench.turn(FakeMessage(4))
    bench.consumer.rest = [lambda: bench.consumer.revoke_now(0), lambda: bench.consumer.assign_now(0)]
    bench.turn(FakeMessage(5))
    bench.settle(5)
    bench.turn(FakeMessage(4))
    bench.revoke(0)
    assert bench.consumer.named("commit") == []


def test_a_message_that_is_being_worked_on_is_not_handed_on_twice(bench: Bench):
    bench.assign(0)
    bench.turn(FakeMessage(5), FakeMessage(5), FakeMessage(6))
    assert bench.offsets() == [5, 6]


def test_a_pause_holds_for_what_is_assigned_later_and_a_resume_wakes_the_leaders(bench: Bench):
    bench.assign(0)
    bench.source.pause()
    bench.turn()
    bench.turn()
    bench.assign(1)
    bench.source.resume()
    bench.turn()
    bench.turn()
    assert bench.consumer.named("pause") == [[0], [1]]
    assert bench.consumer.calls[-2:] == [("resume", [0, 1]), ("ask", [0, 1])]


BAD = FakeMessage(5, error=KafkaError._BAD_COMPRESSION)


@pytest.mark.parametrize(
    ("end", "came", "place", "sought"),
    [
        (6, [BAD], "offset 5", [6]),
        (8, [BAD, BAD, FakeMessage(7)], "offsets 5 to 6", [6, 7, 7]),
    ],
    ids=["a message", "a batch"],
)
def test_what_cannot_be_read_is_one_fault_that_names_its_place_and_once_settled_is_behind(
    bench: Bench, end: int, came: list[FakeMessage], place: str, sought: list[int]
):
    bench.consumer.watermarks = {0: (0, end)}
    bench.assign(0)
    bench.turn(*came)
    (delivery,) = bench.events.deliveries()
    assert delivery.fault.startswith(f"{TOPIC} [0] {place} cannot be read: ")
    assert bench.consumer.named("seek") == sought
    bench.source.settle(delivery.token)
    bench.revoke(0)
    assert bench.consumer.named("commit") == [{0: sought[-1]}]


def test_a_search_in_a_partition_that_was_paused_goes_on_where_it_was(bench: Bench):
    """A resumed partition begins behind what was handed on last."""
    bench.consumer.watermarks = {0: (0, 99)}
    bench.assign(0)
    bench.turn(FakeMessage(5, error=KafkaError._BAD_COMPRESSION))
    bench.source.pause()
    bench.turn()
    bench.turn()
    bench.source.resume()
    bench.turn()
    bench.turn()
    calls = [call for call in bench.consumer.calls if call[0] in ("seek", "resume")]
    assert calls == [("seek", 6), ("resume", [0]), ("seek", 6)]


FATAL = [
    KafkaError(KafkaError._FATAL, "Fatal error: fenced"),
    KafkaError(KafkaError.FENCED_INSTANCE_ID, "fenced", fatal=True),
]


@pytest.mark.parametrize("error", FATAL)
def test_a_consumer_that_brokers_take_no_more_says_so_and_ends(bench: Bench, error: KafkaError):
    def fail() -> None:
        raise KafkaException(error)

    bench.assign(0)
    bench.consumer.turns.put(fail)
    (failed,) = bench.events.wait(Failed)
    assert type(failed.error) is RefusedError
    assert str(failed.error) == "back: the brokers refuse this consumer: fenced; check group_protocol and options"
    bench.source._thread.join(10)
    assert bench.consumer.named("close") == [None]


def test_what_real_brokers_refuse_a_consumer_for_is_said(real_brokers: str):
    topic, events = f"{fresh_name()}.edge.requests", Events()
    settings = LinkSettings(brokers=real_brokers, group_protocol="consumer", options={"group.remote.assignor": "none"})
    with closing(KafkaLink(settings, "back")) as link:
        link.prepare([topic], 20)
        with closing(link.requests(topic, fresh_name(), events)) as source:
            source.start()
            (failed,) = events.wait(Failed)
            assert not source.wait_ready(0)
    assert str(failed.error).startswith("back: the brokers refuse this consumer: Broker: The assignor or its version")


def test_it_is_not_ready_while_the_group_has_put_it_out(bench: Bench):
    bench.assign(0)
    bench.turn(lambda: bench.consumer.lose_now(0))
    assert not bench.source.wait_ready(0)
    bench.assign(0)
    assert bench.source.wait_ready(0)


def test_a_header_whose_name_is_no_text_is_a_fault(bench: Bench):
    bench.assign(0)
    bench.turn(FakeMessage(5, headers=UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid")))
    (delivery,) = bench.events.deliveries()
    assert "UTF-8" in delivery.fault


@pytest.mark.parametrize("names", [[b"\xff"], [b"fine", b"caf\xe9", b"fine"]])
def test_a_header_whose_name_is_no_text_ends_no_process_before_python_has_sped_up_the_code_or_after(
    embedded_broker, names
):
    topic, events = f"{fresh_name()}.edge.requests", Events()
    with closing(KafkaLink(kafka_settings(embedded_broker.brokers), "back")) as link:
        link.prepare([topic], 20)
        to = KafkaAddress(topic, 0)
        with (
            closing(link.requests(topic, fresh_name(), events)) as source,
            closing(link.sender(Events(), message_timeout_s=20, queue_limit=200)) as sender,
        ):
            source.start()
            produce_named(embedded_broker.brokers, topic, 0, names, b"cold")
            for number in range(100):
                assert sender.send(to, message(f"good {number}", name="value"), number)
            events.wait_deliveries(101)
            produce_named(embedded_broker.brokers, topic, 0, names, b"warm")
            assert sender.send(to, message("behind it"), "last")
            first, *_, warm, last = events.wait_deliveries(103)
    assert (last.message.body, last.fault) == (b"behind it", None)
    for bad, body, offset in ((first, b"cold", 0), (warm, b"warm", 101)):
        assert bad.message == Message((), body)
        assert (bad.reply_to, bad.correlation) == (None, None)
        assert bad.fault == f"{topic} [0] offset {offset} is left without headers: a header's name is not UTF-8"


def test_any_other_error_ends_it_aloud_too_and_closes_the_consumer(bench: Bench, caplog):
    def break_it() -> None:
        raise ZeroDivisionError("a bug")

    bench.assign(0)
    bench.consumer.turns.put(break_it)
    (failed,) = bench.events.wait(Failed)
    assert type(failed.error) is TransportError
    assert "back: the consumer has come to its end by a bug: ZeroDivisionError: a bug" in str(failed.error)
    bench.source._thread.join(10)
    assert bench.consumer.named("close") == [None]
    assert "in break_it" in caplog.text, "where it happened"


def test_the_consumer_is_closed_even_where_nobody_can_be_told(bench: Bench, monkeypatch):
    def break_it(*events: object) -> None:
        raise ZeroDivisionError("a bug")

    ended: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: ended.append(args.exc_value))
    bench.assign()
    monkeypatch.setattr(bench.events, "_on_event", break_it)
    bench.consumer.turns.put(break_it)
    bench.source._thread.join(10)
    assert [str(error) for error in ended] == ["a bug"]
    assert bench.consumer.named("close") == [None]


def test_errors_that_are_no_message_are_not_handed_on(bench: Bench):
    bench.assign(0)
    bench.turn(FakeMessage(-1001, error=KafkaError.UNKNOWN_TOPIC_OR_PART), FakeMessage(5))
    assert bench.offsets() == [5]


def test_an_age_is_corrected_by_the_brokers_clock(bench: Bench, monkeypatch):
    monkeypatch.setattr(source_module.time, "monotonic", lambda: 1000.0)
    bench.cluster.clock.observe(900.0, 900.0, 960.0)  # the broker is a minute ahead
    bench.assign(0)
    bench.turn(
        FakeMessage(5, timestamp_ms=1_050_000),
        FakeMessage(6, timestamp_ms=1_050_000, kind=TIMESTAMP_CREATE_TIME),
    )
    bench.cluster.embedded = True
    bench.turn(FakeMessage(7, timestamp_ms=1_050_000))
    assert [delivery.age_s for delivery in bench.events.deliveries()] == [pytest.approx(10.0), 0.0, 0.0]


def test_its_lag_is_read_in_passing_and_not_known_while_the_brokers_are_away(monkeypatch):
    monkeypatch.setattr(source_module, "COMMIT_EVERY_S", 0.0)
    bench = Bench()
    bench.turn()
    assert bench.source.lag is None, "the group has not said what its share is"
    bench.consumer.watermarks, bench.consumer.positions = {0: (0, 30)}, {0: 12}
    bench.assign(0)
    bench.turn()
    assert bench.source.lag == 18
    bench.cluster.watch.up = False
    bench.turn()
    bench.turn()
    assert bench.source.lag is None
    bench.source.close()


def test_while_the_brokers_are_away_closing_does_not_wait_for_a_commit(bench: Bench):
    bench.assign(0)
    bench.turn(FakeMessage(5))
    bench.settle(5)
    bench.cluster.watch.up = False
    bench.revoke(0)
    assert bench.consumer.named("commit") == []
