"""The tuned mock cluster, and the plain one where librdkafka's symbols are not to be had."""

from __future__ import annotations

from contextlib import closing

import pytest
from confluent_kafka.admin import AdminClient

from branchy.brokers import mock_cluster
from branchy.brokers.mock_cluster import PlainMockCluster, TunedMockCluster, open_mock_cluster


def topics_after_asking_for(brokers: str, topic: str) -> list[str]:
    admin = AdminClient({"bootstrap.servers": brokers, "log_level": 0})
    return list(admin.list_topics(topic, timeout=10).topics)


def test_the_wheels_own_librdkafka_has_the_symbols():
    with closing(open_mock_cluster()) as cluster:
        assert isinstance(cluster, TunedMockCluster)
        assert topics_after_asking_for(cluster.brokers, "t") == ["t"]


@pytest.mark.parametrize("candidates", [[], ["no-such-library.so"], ["libc.so.6"]])
def test_without_the_symbols_a_plain_cluster_does(monkeypatch, candidates):
    monkeypatch.setattr(mock_cluster, "_candidates", lambda: candidates)
    with closing(open_mock_cluster()) as cluster:
        assert isinstance(cluster, PlainMockCluster)
        assert topics_after_asking_for(cluster.brokers, "t") == ["t"]


def test_two_clusters_are_apart():
    with closing(open_mock_cluster()) as one, closing(open_mock_cluster()) as other:
        assert one.brokers != other.brokers
