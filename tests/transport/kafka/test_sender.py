"""Each send's one report: acknowledged, refused, timed out, purged; and a producer that came to its end."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from queue import SimpleQueue
from typing import Any

import pytest
from tier_world import TIERS, model_of
from transport_harness import PATIENCE_S, Events, fresh_name, kafka_settings, message

from branchy.brokers.mock_cluster import TunedMockCluster, open_mock_cluster
from branchy.config import LinkSettings
from branchy.core.tier_model import TierLimits
from branchy.errors import TransportError
from branchy.runner.tier import Back, Tier
from branchy.transport.base import Arrived, Delivery, Message, Sent
from branchy.transport.kafka import KafkaLink
from branchy.transport.kafka.addresses import KafkaAddress

NOWHERE = LinkSettings(brokers="127.0.0.1:1")
QUEUE = KafkaAddress("branchy.c.edge.requests")
INIT_PRODUCER_ID, PRODUCE = 22, 0
CLUSTER_AUTHORIZATION_FAILED, OUT_OF_ORDER_SEQUENCE_NUMBER, TOPIC_AUTHORIZATION_FAILED = 31, 45, 29


def test_a_full_queue_takes_nothing_and_reports_nothing_of_it():
    events = Events()
    sender = KafkaLink(NOWHERE, "front").sender(events, message_timeout_s=30, queue_limit=3)
    assert [sender.send(QUEUE, message("x"), tag) for tag in range(5)] == [True, True, True, False, False]
    sender.purge()
    assert sorted(sent.tag for sent in events.wait(Sent, 3)) == [0, 1, 2]
    assert sender.send(QUEUE, message("x"), 5)
    sender.close()
    assert sorted(sent.tag for sent in events.of(Sent)) == [0, 1, 2, 5]


def test_what_is_purged_or_closed_over_is_reported_as_failed_for_now():
    events = Events()
    sender = KafkaLink(NOWHERE, "front").sender(events, message_timeout_s=30, queue_limit=10)
    sender.send(QUEUE, message("x"), "purged")
    sender.purge()
    sender.send(QUEUE, message("x"), "closed over")
    sender.close()
    fates = {sent.tag: sent.error for sent in events.wait(Sent, 2)}
    assert {tag: error.permanent for tag, error in fates.items()} == {"purged": False, "closed over": False}


def test_what_no_broker_takes_in_time_is_reported_as_failed_for_now():
    events = Events()
    with closing(KafkaLink(NOWHERE, "front").sender(events, message_timeout_s=0.2, queue_limit=10)) as sender:
        sender.send(QUEUE, message("x"), 1)
        (sent,) = events.wait(Sent)
        assert sent.error is not None
        assert not sent.error.permanent


def test_flush_says_how_many_are_left():
    with closing(KafkaLink(NOWHERE, "front").sender(Events(), message_timeout_s=30, queue_limit=10)) as sender:
        for tag in range(4):
            sender.send(QUEUE, message("x"), tag)
        assert sender.flush(0.01) == 4


def test_without_brokers_a_sender_is_not_ready():
    with closing(KafkaLink(NOWHERE, "front").sender(Events(), message_timeout_s=30, queue_limit=10)) as sender:
        assert not sender.wait_ready(0.2)


def test_a_closed_sender_takes_nothing():
    sender = KafkaLink(NOWHERE, "front").sender(events := Events(), message_timeout_s=30, queue_limit=10)
    sender.close()
    assert not sender.send(QUEUE, message("x"), 1)
    assert events.all == []


def test_an_address_of_another_transport_is_refused():
    with closing(KafkaLink(NOWHERE, "front").sender(Events(), message_timeout_s=30, queue_limit=10)) as sender:
        with pytest.raises(TransportError, match="addresses of a Kafka link"):
            sender.send("somewhere", message("x"), 1)
        with pytest.raises(TransportError, match="addresses of a Kafka link"):
            sender.send(QUEUE, message("x"), 1, reply_to="somewhere")


def test_a_partition_that_is_not_there_fails_for_good(embedded_broker):
    link = KafkaLink(kafka_settings(embedded_broker.brokers), "back")
    topic = f"{fresh_name()}.answers"
    link.prepare([topic], 10)
    events = Events()
    with closing(link.sender(events, message_timeout_s=10, queue_limit=10)) as sender:
        sender.send(KafkaAddress(topic, 4711), message("x"), 1)
        (sent,) = events.wait(Sent)
        assert sent.error is not None
        assert sent.error.permanent


class ScriptedBroker:
    """A mock cluster in this process that answers the next requests of a kind with an error."""

    def __init__(self, cluster: TunedMockCluster) -> None:
        self._cluster = cluster
        self._push = cluster._library.rd_kafka_mock_push_request_errors_array
        self._push.argtypes = [ctypes.c_void_p, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int)]
        self._push.restype = None

    def link(self) -> KafkaLink:
        link = KafkaLink(kafka_settings(self._cluster.brokers), "back")
        link.prepare([QUEUE.topic], 10)
        return link

    def fail_next(self, request: int, *codes: int) -> None:
        self._push(self._cluster._cluster, request, len(codes), (ctypes.c_int * len(codes))(*codes))


@pytest.fixture
def scripted() -> Iterator[ScriptedBroker]:
    cluster = open_mock_cluster()
    if not isinstance(cluster, TunedMockCluster):
        cluster.close()
        pytest.skip("this librdkafka has no symbols to script its mock cluster with")
    with closing(cluster):
        yield ScriptedBroker(cluster)


def test_what_the_broker_refuses_for_good_is_reported_so(scripted: ScriptedBroker):
    events = Events()
    with closing(scripted.link().sender(events, message_timeout_s=10, queue_limit=10)) as sender:
        assert sender.wait_ready(10)
        scripted.fail_next(PRODUCE, TOPIC_AUTHORIZATION_FAILED)
        sender.send(QUEUE, message("x"), 1)
        (sent,) = events.wait(Sent)
        assert sent.error is not None
        assert sent.error.permanent


@pytest.mark.parametrize(
    ("request_kind", "code"),
    [(INIT_PRODUCER_ID, CLUSTER_AUTHORIZATION_FAILED), (PRODUCE, OUT_OF_ORDER_SEQUENCE_NUMBER)],
)
def test_after_a_fatal_error_a_new_producer_sends_again_and_each_send_has_its_report(
    scripted: ScriptedBroker, request_kind: int, code: int
):
    link = scripted.link()
    scripted.fail_next(request_kind, code)
    events = Events()
    with closing(link.sender(events, message_timeout_s=10, queue_limit=1000)) as sender:
        sent = 0
        until_s = time.monotonic() + PATIENCE_S
        while not any(report.error is None for report in events.of(Sent)):
            sent += sender.send(QUEUE, message("x"), sent)
            events.wait(Sent, sent)
            assert time.monotonic() < until_s, "never sent again"
            time.sleep(0.02)
        assert sorted(report.tag for report in events.of(Sent)) == list(range(sent))
        assert all(not report.error.permanent for report in events.of(Sent) if report.error)


class Garbage:
    """The source of a tier's back, of messages that are no requests."""

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
        self.settled: SimpleQueue[Any] = SimpleQueue()
        self.settle = self.settled.put

    def bring(self, token: str) -> None:
        self.tier.sink(Arrived([Delivery(token, Message((), b"garbage"), 0.0, None, None)]))

    start = pause = resume = lambda self: None


def test_a_tier_waits_for_a_new_producer_without_trying_in_between(scripted: ScriptedBroker, caplog):
    tier = Tier("edge", [model_of(TIERS["first"])], TierLimits())
    source, link = Garbage(tier), scripted.link()
    with closing(link.sender(tier.sink, message_timeout_s=10, queue_limit=10)) as sender:
        back = Back(source, sender, QUEUE)
        thread = threading.Thread(target=tier.run, args=(back, None, None))
        thread.start()
        source.bring("before")
        assert source.settled.get(timeout=PATIENCE_S) == "before"
        scripted.fail_next(PRODUCE, OUT_OF_ORDER_SEQUENCE_NUMBER)
        source.bring("after")
        assert source.settled.get(timeout=PATIENCE_S) == "after"
        tier.stop()
        thread.join(PATIENCE_S)
    assert 1 <= tier.machine.counters["send.failed"] <= 3
    assert sum("was not delivered" in said for said in caplog.messages) <= 3
