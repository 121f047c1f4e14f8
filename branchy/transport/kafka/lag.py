"""How far a consumer is behind: what its partitions hold beyond what was taken of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from confluent_kafka import OFFSET_END, KafkaException, TopicPartition

from branchy.transport.kafka.addresses import Assignment

ASK_EVERY_S = 1.0
ASK_TIMEOUT_S = 0.2
"""The consumer's thread waits for it: deliveries, too, are late by so much when brokers do not answer."""


class LagReader:
    """Of one consumer, in that consumer's thread.

    Where a partition ends came with its last fetch, and how far it was taken librdkafka knows, so a look asks no
    broker. Two things no fetch tells, and they are asked at most once a second: where a partition begins of which
    nothing was taken yet, once an assignment; and where one ends that is paused, since it is not fetched.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._begins: dict[Assignment, int] = {}
        self._ends: dict[Assignment, int] = {}
        self._asked_s = float("-inf")

    def read(self, assignments: Sequence[Assignment], *, paused: bool) -> int | None:
        """Messages not taken yet, over these partitions; None while a beginning or an end is not known."""
        self._begins = {each: offset for each, offset in self._begins.items() if each in assignments}
        self._ends = {each: offset for each, offset in self._ends.items() if each in assignments and paused}
        if not assignments:
            return 0
        try:
            found = _offsets(assignments, self._consumer.position(_partitions(assignments)))
            taken = {each: offset for each, offset in found.items() if offset >= 0}
            self._ask([each for each in assignments if each not in taken], assignments if paused else ())
            behind = [self._behind(each, taken.get(each)) for each in assignments]
        except KafkaException:
            return None
        known = [each for each in behind if each is not None]
        return sum(known) if len(known) == len(behind) else None

    def _behind(self, assignment: Assignment, taken: int | None) -> int | None:
        (partition,) = _partitions([assignment])
        low, high = map(int, self._consumer.get_watermark_offsets(partition, cached=True))
        begin = self._begins.get(assignment) if taken is None else taken
        end = max(high, self._ends.get(assignment, -1))
        if begin is None or max(begin, low) < 0 or end < 0:
            return None
        return max(0, end - max(begin, low))  # what retention has removed is not waited for

    def _ask(self, untaken: Sequence[Assignment], paused: Sequence[Assignment]) -> None:
        unknown = [each for each in untaken if each not in self._begins]
        if not (unknown or paused) or time.monotonic() < self._asked_s + ASK_EVERY_S:
            return
        self._asked_s = time.monotonic()
        if unknown:  # where nothing was committed it is negative, and reading begins at the low watermark
            found = self._consumer.committed(_partitions(unknown), timeout=ASK_TIMEOUT_S)
            self._begins |= _offsets(unknown, found)
        if paused:
            found = self._consumer.offsets_for_times(_partitions(paused, OFFSET_END), timeout=ASK_TIMEOUT_S)
            self._ends |= {each: offset for each, offset in _offsets(paused, found).items() if offset >= 0}


def _partitions(assignments: Sequence[Assignment], *offset: int) -> list[TopicPartition]:
    return [TopicPartition(each.topic, each.partition, *offset) for each in assignments]


def _offsets(assignments: Sequence[Assignment], found: Sequence[Any]) -> dict[Assignment, int]:
    """What was answered, by the partitions that it was asked of; those with an error are left out."""
    offsets = {each.partition: int(each.offset) for each in found if each.error is None}
    return {each: offsets[each.partition] for each in assignments if each.partition in offsets}
