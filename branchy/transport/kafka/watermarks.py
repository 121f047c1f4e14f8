"""Where a partition begins and ends."""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import KafkaException, TopicPartition

from branchy.transport.kafka.topics import NOT_ALLOWED

RETRY_S = 0.05


def watermarks(consumer: Any, topic: str, partition: int, timeout_s: float) -> tuple[int, int]:
    """The low and the high watermark; a new topic's leader may not know yet that it is one, so ask again.

    Raises:
        KafkaException: not allowed, or no broker that knows within `timeout_s`.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        left_s = max(0.1, deadline_s - time.monotonic())
        try:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=left_s)
            return int(low), int(high)
        except KafkaException as error:
            if error.args[0].code() in NOT_ALLOWED or time.monotonic() > deadline_s:
                raise
            time.sleep(RETRY_S)
