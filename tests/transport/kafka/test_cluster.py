"""What a link learns of its brokers, and which reply addresses it takes."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import closing

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic
from transport_harness import Events, fresh_name, kafka_settings, message

from branchy.config import LinkSettings
from branchy.core.access import Rule
from branchy.errors import BrokerUnavailableError, RefusedError, TransportError
from branchy.transport.base import Sent
from branchy.transport.kafka import KafkaLink
from branchy.transport.kafka import cluster as cluster_module
from branchy.transport.kafka.addresses import KafkaAddress
from branchy.transport.kafka.cluster import Cluster

NOWHERE = "127.0.0.1:1"
HASTY = """
import sys
from branchy.config import LinkSettings
from branchy.transport.kafka.cluster import Cluster
cluster = Cluster(LinkSettings(brokers=sys.argv[1]), "back", "branchy.")
cluster.connect(20.0)
for number in range(40):
    cluster.check_may_read("branchy.hasty.edge.requests", 0.002 + number * 0.002, f"hasty-{number}")
"""


@pytest.fixture
def cluster(embedded_broker):
    cluster = Cluster(kafka_settings(embedded_broker.brokers), "back", "branchy.")
    yield cluster
    cluster.close()


def test_the_embedded_broker_is_recognised(cluster: Cluster):
    cluster.connect(10)
    assert cluster.embedded


def test_brokers_that_do_not_answer_are_named_with_the_time_given(cluster: Cluster):
    gone = Cluster(LinkSettings(brokers=NOWHERE), "front", "branchy.")
    with pytest.raises(
        BrokerUnavailableError, match=r"front: no Kafka broker answered at 127\.0\.0\.1:1 within 0\.3 s"
    ):
        gone.prepare(["branchy.a.requests"], 0.3)


def test_after_a_failed_attempt_the_address_is_looked_up_anew(embedded_broker, monkeypatch):
    told = [NOWHERE]
    monkeypatch.setattr("branchy.transport.kafka.config.broker_addresses", lambda settings: told[-1])
    monkeypatch.setattr(cluster_module, "broker_addresses", lambda settings: told[-1])
    cluster = Cluster(LinkSettings(), "back", "branchy.")
    with pytest.raises(BrokerUnavailableError):
        cluster.connect(0.3)
    told.append(embedded_broker.brokers)
    cluster.connect(10)
    assert cluster.embedded
    cluster.close()


def test_a_reply_topic_must_have_the_prefix(cluster: Cluster):
    assert "does not start with 'branchy.'" in cluster.complaint(KafkaAddress("audit.answers", 0))


@pytest.mark.parametrize("name", ["branchy.c.cloud.requests", "branchy.c.edge.dead"])
def test_a_topic_that_is_for_something_else_is_no_reply_topic(cluster: Cluster, name: str):
    """A device that names it would have the tier write there with the tier's rights."""
    cluster.prepare([name], 10)
    assert "is not for answers" in cluster.complaint(KafkaAddress(name, 0))


def test_a_reply_topic_and_its_partition_must_be_there(cluster: Cluster):
    topic = f"{fresh_name()}.answers"
    assert "is not there" in cluster.complaint(KafkaAddress(topic, 0))
    cluster.prepare([topic], 10)
    count = cluster.partitions(topic)
    assert cluster.complaint(KafkaAddress(topic, count - 1)) is None
    assert cluster.complaint(KafkaAddress(topic)) is None
    assert f"has {count} partitions, none is {count}" in cluster.complaint(KafkaAddress(topic, count))
    assert cluster.complaint(KafkaAddress(topic, -1)) is not None


def test_asking_for_a_reply_topic_does_not_make_it(cluster: Cluster, monkeypatch):
    monkeypatch.setattr(cluster_module, "REFRESH_S", 0.0)
    topic = f"{fresh_name()}.answers"
    cluster.connect(10)
    assert [cluster.partitions(topic) for _ in range(3)] == [0, 0, 0]


def test_a_reply_topic_made_by_another_is_found(cluster: Cluster, embedded_broker):
    cluster.connect(10)
    topic = f"{fresh_name()}.answers"
    other = Cluster(kafka_settings(embedded_broker.brokers), "device", "branchy.")
    other.prepare([topic], 10)
    other.close()
    assert cluster.partitions(topic) > 0


def test_partitions_that_were_added_are_found(real_brokers: str, monkeypatch):
    monkeypatch.setattr(cluster_module, "REFRESH_S", 0.0)
    topic, events = f"{fresh_name()}.answers", Events()
    admin = AdminClient({"bootstrap.servers": real_brokers})
    admin.create_topics([NewTopic(topic, 2)])[topic].result(20)
    link = KafkaLink(kafka_settings(real_brokers), "back")
    link.prepare([topic], 20)
    with closing(link), closing(link.sender(events, message_timeout_s=10, queue_limit=10)) as sender:
        assert sender.send(KafkaAddress(topic, 0), message("before"), 0)
        events.wait(Sent)
        assert "has 2 partitions, none is 2" in link._cluster.complaint(KafkaAddress(topic, 2))
        admin.create_partitions([NewPartitions(topic, 3)])[topic].result(20)
        until_s = time.monotonic() + 20
        while link._cluster.complaint(KafkaAddress(topic, 2)) is not None:
            assert time.monotonic() < until_s
        assert sender.send(KafkaAddress(topic, 2), message("after"), 1)
        assert [sent.error for sent in events.wait(Sent, 2)] == [None, None]


def test_partitions_that_are_not_there_cost_one_look_in_a_while(cluster: Cluster, monkeypatch):
    topic, looks = f"{fresh_name()}.answers", []
    cluster.prepare([topic], 10)
    monkeypatch.setattr(cluster, "_answers", lambda timeout_s: looks.append(timeout_s))
    for number in range(100):
        assert cluster.complaint(KafkaAddress(topic, 1000 + number)) is not None
        assert cluster.complaint(KafkaAddress(topic, 0)) is None
    assert len(looks) == 1


def test_unknown_reply_topics_cost_one_look_in_a_while(cluster: Cluster, monkeypatch):
    looks = []
    monkeypatch.setattr(cluster, "_answers", lambda timeout_s: looks.append(timeout_s))
    for number in range(100):
        cluster.complaint(KafkaAddress(f"branchy.unknown.{number}", 0))
    assert len(looks) == 1


def test_a_batch_fits_into_the_smallest_topic_and_a_message_into_the_largest(cluster: Cluster):
    cluster._limits.update({"small": 700_000, "large": 5_000_000})
    assert cluster.limits() == {"message.max.bytes": 5_000_000, "batch.size": 700_000 - 64 * 1024}


def test_refusals_are_told_from_absence(cluster: Cluster):
    from confluent_kafka import KafkaError, KafkaException

    refused = cluster.unavailable(KafkaException(KafkaError(KafkaError.CLUSTER_AUTHORIZATION_FAILED)), 1)
    assert type(refused) is RefusedError
    assert "do not allow" in str(refused)


def test_a_group_that_cannot_be_asked_about_in_time_does_not_end_the_process(real_brokers: str):
    """As librdkafka's admin client does, then or when the next broker goes away."""
    done = subprocess.run([sys.executable, "-c", HASTY, real_brokers], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_embedded_broker_takes_no_rights(cluster: Cluster):
    with pytest.raises(TransportError, match="the embedded broker keeps no rules"):
        cluster.allow([Rule("edge", ("READ",), "topic", "branchy.c.edge.requests")], 10)


def test_brokers_without_an_authorizer_say_that_they_keep_no_rules(apache_kafka):
    plain = Cluster(kafka_settings(apache_kafka.brokers), "back", "branchy.")
    with pytest.raises(TransportError, match="the brokers keep no rules"):
        plain.allow([Rule("edge", ("READ",), "topic", "branchy.c.edge.requests")], 10)
    plain.close()
