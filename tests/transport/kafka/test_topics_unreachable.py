"""Topics while one of the brokers cannot be reached, or none tells its settings; the clock is the test's."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import ConfigResource, NewTopic, ResourceType

from branchy.config import LinkSettings
from branchy.errors import BrokerUnavailableError, TransportError
from branchy.transport.kafka import cluster as cluster_module
from branchy.transport.kafka import topics
from branchy.transport.kafka.cluster import Cluster

QUEUE = "branchy.c.edge.requests"
BUDGET_S = 5.0


class ThreeBrokers:
    """An admin client of brokers 1 to 3, which keep three copies; some errors take all the time that they are given."""

    def __init__(self, errors: dict[int, int], there: dict[str, dict[str, str]] | None = None) -> None:
        self.errors, self.settings = errors, there or {}
        self.now_s = 100.0
        self.asked: list[int] = []
        self.given_s: list[float] = []
        """How long what is no question to one broker might take."""

    def create_topics(self, new: list[NewTopic], request_timeout: float) -> dict[str, Future[None]]:
        self.given_s.append(request_timeout)
        self.settings |= {topic.topic: {"min.insync.replicas": "1", **topic.config} for topic in new}
        return {topic.topic: answered(None) for topic in new}

    def list_topics(self, timeout: float) -> SimpleNamespace:
        self.given_s.append(timeout)
        partition = SimpleNamespace(leader=2, replicas=[1, 2, 3])
        topic = SimpleNamespace(error=None, partitions=dict.fromkeys(range(12), partition))
        found = dict.fromkeys(self.settings, topic)
        return SimpleNamespace(cluster_id="c", brokers=dict.fromkeys((1, 2, 3)), topics=found)

    def describe_configs(self, resources: list[ConfigResource], request_timeout: float) -> dict[Any, Future[Any]]:
        return {resource: self._described(resource, request_timeout) for resource in resources}

    def _described(self, resource: ConfigResource, timeout_s: float) -> Future[Any]:
        if resource.restype == ResourceType.TOPIC:
            self.given_s.append(timeout_s)
            return answered({key: SimpleNamespace(value=value) for key, value in self.settings[resource.name].items()})
        broker = int(resource.name)
        self.asked.append(broker)
        if broker not in self.errors:
            return answered({"default.replication.factor": SimpleNamespace(value="3")})
        if self.errors[broker] == KafkaError._TIMED_OUT:
            self.now_s += timeout_s
        return failed(self.errors[broker])


def answered(what: Any) -> Future[Any]:
    future = Future[Any]()
    future.set_result(what)
    return future


def failed(code: int) -> Future[Any]:
    future = Future[Any]()
    future.set_exception(KafkaException(KafkaError(code)))
    return future


@pytest.fixture
def cluster_of(monkeypatch: pytest.MonkeyPatch):
    """A cluster that such a client has connected to, which asks the lowest number first."""

    def connected(admin: ThreeBrokers) -> Cluster:
        cluster = Cluster(LinkSettings(brokers="here:1"), "back", "branchy.")
        monkeypatch.setattr(cluster, "_admin", admin)
        monkeypatch.setattr(cluster, "connect", lambda timeout_s: cluster._learn(admin.list_topics(timeout_s)))
        clock = SimpleNamespace(monotonic=lambda: admin.now_s, sleep=lambda s: None)
        monkeypatch.setattr(topics, "time", clock)
        monkeypatch.setattr(cluster_module, "time", clock)
        monkeypatch.setattr(topics.random, "sample", lambda found, count: found[:count])
        return cluster

    return connected


@pytest.mark.parametrize("error", [KafkaError._TIMED_OUT, KafkaError._TRANSPORT])
def test_a_broker_that_cannot_be_reached_leaves_time_for_the_rest_and_another_is_asked(cluster_of, error):
    """It took the whole start-up time, so `serve` said for ever that no broker answers."""
    admin = ThreeBrokers({1: error})
    cluster_of(admin).prepare([QUEUE], BUDGET_S)
    assert admin.asked == [1, 2]
    assert min(admin.given_s) >= BUDGET_S - 2
    assert admin.settings[QUEUE]["min.insync.replicas"] == "2"


def test_brokers_of_which_none_answers_are_tried_again_and_no_topic_is_made_in_between(cluster_of):
    admin = ThreeBrokers(dict.fromkeys((1, 2, 3), KafkaError._TIMED_OUT))
    with pytest.raises(BrokerUnavailableError, match="no Kafka broker answered"):
        cluster_of(admin).prepare([QUEUE], BUDGET_S)
    assert admin.asked == [1, 2, 3]
    assert admin.settings == {}


def test_the_deadline_holds_however_many_do_not_answer(cluster_of):
    admin = ThreeBrokers(dict.fromkeys((1, 2, 3), KafkaError._TIMED_OUT))
    with pytest.raises(BrokerUnavailableError):
        cluster_of(admin).prepare([QUEUE], 0.5)
    assert admin.asked == [1, 2]  # a broker has 0.1 s at least
    assert admin.now_s <= 100.7


def test_a_refusal_is_an_answer_and_other_brokers_would_say_the_same(cluster_of):
    admin = ThreeBrokers(dict.fromkeys((1, 2, 3), KafkaError.CLUSTER_AUTHORIZATION_FAILED))
    cluster_of(admin).prepare([QUEUE], BUDGET_S)
    assert admin.asked == [1]
    assert QUEUE in admin.settings


def test_topics_that_were_just_made_are_held_to_the_copies_that_they_turned_out_to_have(cluster_of):
    """Who may not know the brokers' default made topics whose acknowledged messages one broker could lose."""
    admin = ThreeBrokers(dict.fromkeys((1, 2, 3), KafkaError.CLUSTER_AUTHORIZATION_FAILED))
    cluster = cluster_of(admin)
    with pytest.raises(TransportError) as error:
        cluster.create({QUEUE: 0}, 12, None, BUDGET_S)
    assert str(error.value) == (
        f"topic {QUEUE}: min.insync.replicas is 1, expected at least 2; alter what differs, or delete the topic and "
        "create it again, with --replication: the brokers do not tell this user how many copies they keep"
    )
    del admin.settings[QUEUE]
    assert cluster.create({QUEUE: 0}, 12, 3, BUDGET_S) == [QUEUE]
