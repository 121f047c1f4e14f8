"""What every consumer thread does: fetch what is there, and get past what cannot be read."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

logger = logging.getLogger(__name__)

BATCH = 256
"""Most messages handed on at once."""

UNREADABLE = frozenset({KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG, KafkaError._NOT_IMPLEMENTED})
"""Errors of one batch on a partition: fetching it again cannot help."""

COMPLAIN_EVERY_S = 10.0
TROUBLE_PAUSE_S = 0.1


class Fetcher:
    """Fetches for one consumer, in that consumer's thread."""

    def __init__(self, consumer: Any, name: str) -> None:
        self._consumer, self._name = consumer, name
        self._complained_s = float("-inf")
        self._reported: dict[tuple[str, int], int] = {}
        self._next: dict[tuple[str, int], int] = {}

    def first(self, timeout_s: float) -> Any:
        """Wait for a message; None when none came, or the client is in trouble."""
        try:
            return self._consumer.poll(timeout_s)
        except KafkaException as error:
            self.complain(error.args[0].str())
            time.sleep(TROUBLE_PAUSE_S)
            return None

    def rest(self) -> list[Any]:
        """What else is there already: no batch waits for its last message."""
        try:
            return list(self._consumer.consume(BATCH - 1, 0))
        except KafkaException as error:
            self.complain(error.args[0].str())
            return []

    def skip(self, message: Any) -> int | None:
        """Get past what came with an error.

        A batch that cannot be decompressed is reported at its first offset whatever was asked
        for, so each report moves one offset on.

        Returns:
            The offset that was given up, None when the error is not of a message.
        """
        error = message.error()
        if error.code() not in UNREADABLE or message.offset() is None or message.offset() < 0:
            self.complain(error.str())
            return None
        partition, offset = (message.topic(), message.partition()), int(message.offset())
        if self._reported.get(partition) == offset:
            offset = self._next[partition]
        self._reported[partition], self._next[partition] = int(message.offset()), offset + 1
        try:
            self._consumer.seek(TopicPartition(*partition, offset + 1))
        except KafkaException:
            return None  # the partition is not ours any more
        self.complain(f"{partition[0]} [{partition[1]}] offset {offset} skipped: {error.str()}")
        return offset

    def restart(self, partitions: Iterable[tuple[str, int]]) -> None:
        """These partitions are read from their committed offsets again."""
        for partition in partitions:
            self._reported.pop(partition, None)

    def complain(self, text: str) -> None:
        """Log, once in a while."""
        if time.monotonic() - self._complained_s > COMPLAIN_EVERY_S:
            self._complained_s = time.monotonic()
            logger.warning("%s: %s", self._name, text)
