"""A link whose brokers go away, with real processes."""

from __future__ import annotations

import os
import signal
from contextlib import closing

from transport_harness import Events, kafka_settings

from branchy.brokers.embedded import start_embedded
from branchy.transport.base import Link, LinkState
from branchy.transport.kafka import KafkaLink


def test_a_link_tells_every_sink_once_that_its_brokers_are_gone():
    with start_embedded() as broker:
        link: Link = KafkaLink(kafka_settings(broker.brokers), "front")
        link.prepare(["branchy.c.answers"], 10)
        one, other = Events(), Events()
        with (
            closing(link.replies("branchy.c.answers", "0", one, 10)),
            closing(link.sender(one, message_timeout_s=5, queue_limit=10)) as sender,
            closing(link.sender(other, message_timeout_s=5, queue_limit=10)),
        ):
            assert sender.wait_ready(10)
            os.kill(broker.pid, signal.SIGKILL)
            for events in (one, other):
                (state,) = events.wait(LinkState)
                assert (state.link, state.up) == ("front", False)
        link.close()


def test_the_embedded_broker_has_no_append_time_and_no_admin(embedded_broker):
    with closing(KafkaLink(kafka_settings(embedded_broker.brokers), "back")) as link:
        link.prepare(["branchy.c.answers"], 10)
        assert not link.capabilities.append_time
        assert not link.capabilities.admin
        assert link.capabilities.redelivers
        assert link.capabilities.replicas
