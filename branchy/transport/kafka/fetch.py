"""What every consumer thread does: fetch what is there, and get past what cannot be read."""

from __future__ import annotations

import logging
import time
from typing import Any

from confluent_kafka import KafkaError, TopicPartition

logger = logging.getLogger(__name__)

BATCH = 256
"""Most messages handed on at once."""

UNREADABLE = frozenset({KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG, KafkaError._NOT_IMPLEMENTED})
"""Errors of one batch on a partition: fetching it again cannot help."""

COMPLAIN_EVERY_S = 10.0


class Fetcher:
    """Fetches for one consumer, in that consumer's thread."""

    def __init__(self, consumer: Any, name: str) -> None:
        self._consumer, self._name = consumer, name
        self._complained_s = float("-inf")
        self._past: dict[tuple[str, int], int] = {}

    def fetch(self, timeout_s: float) -> list[Any]:
        """Wait for the first message, then take what is there already: no batch waits for its last message."""
        first = self._consumer.poll(timeout_s)
        return [] if first is None else [first, *self._consumer.consume(BATCH - 1, 0)]

    def skip(self, message: Any) -> int | None:
        """Get past what came with an error.

        A batch that cannot be decompressed is reported at its first offset whatever was asked
        for, so each report moves one offset on.

        Returns:
            The offset that was given up, None when the error is not of a message.
        """
        error = message.error()
        if error.code() not in UNREADABLE or message.offset() is None or message.offset() < 0:
            self._complain(error)
            return None
        partition = (message.topic(), message.partition())
        offset: int = max(message.offset(), self._past.get(partition, 0))
        self._past[partition] = offset + 1
        self._consumer.seek(TopicPartition(*partition, offset + 1))
        logger.warning("%s: %s [%d] offset %d skipped: %s", self._name, *partition, offset, error.str())
        return offset

    def _complain(self, error: Any) -> None:
        if time.monotonic() - self._complained_s > COMPLAIN_EVERY_S:
            self._complained_s = time.monotonic()
            logger.warning("%s: %s", self._name, error.str())
