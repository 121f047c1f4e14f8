"""A consumer whose every answer the test writes, for what a real group does only by chance."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_INVALID, TIMESTAMP_LOG_APPEND_TIME, KafkaError, TopicPartition

from branchy.config import LinkSettings
from branchy.transport.kafka.cluster import Cluster

TOPIC = "branchy.c.edge.requests"


class FakeMessage:
    """As much of confluent-kafka's Message as is used."""

    def __init__(
        self,
        offset: int,
        *,
        partition: int = 0,
        error: int | None = None,
        timestamp_ms: int = 0,
        headers: Sequence[tuple[str, bytes | None]] | Exception | None = None,
        kind: int = TIMESTAMP_LOG_APPEND_TIME,
        value: bytes | None = None,
    ) -> None:
        self._offset, self._partition, self._headers = offset, partition, headers
        self._value = str(offset).encode() if value is None else value
        self._error = None if error is None else KafkaError(error)
        self._timestamp = (kind, timestamp_ms)

    def topic(self) -> str:
        return TOPIC

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def error(self) -> KafkaError | None:
        return self._error

    def headers(self) -> Any:
        if isinstance(self._headers, Exception):
            raise self._headers
        return self._headers

    def value(self) -> bytes:
        return self._value

    def timestamp(self) -> tuple[int, int]:
        return self._timestamp


class FakeOffset(NamedTuple):
    """As much of confluent-kafka's TopicPartition as is read of an answer."""

    topic: str
    partition: int
    offset: int
    error: KafkaError | None = None

    @classmethod
    def of(cls, asked: Any, known: Mapping[int, int | KafkaError]) -> FakeOffset:
        found = known.get(asked.partition, OFFSET_INVALID)
        if isinstance(found, KafkaError):
            return cls(asked.topic, asked.partition, OFFSET_INVALID, found)
        return cls(asked.topic, asked.partition, found)


class FakeConsumer:
    """Polls take `turns` in order, each a message or a function to call (a rebalance); consume takes all of `rest`."""

    def __init__(self) -> None:
        self.turns: queue.Queue[FakeMessage | Callable[[], None]] = queue.Queue()
        self.rest: list[FakeMessage | Callable[[], None]] = []
        self.calls: list[tuple[str, Any]] = []
        self.owned: list[TopicPartition] = []
        self.watermarks: dict[int, tuple[int, int]] = {}
        self.positions: dict[int, int] = {}
        self.stored: dict[int, int | KafkaError] = {}
        self.ends: dict[int, int | KafkaError] = {}
        self.callbacks: dict[str, Callable[[Any, Sequence[Any]], None]] = {}

    def subscribe(self, topics: list[str], **callbacks: Callable[[Any, Sequence[Any]], None]) -> None:
        self.callbacks = callbacks

    def assign_now(self, *partitions: int) -> None:
        self.callbacks["on_assign"](self, [TopicPartition(TOPIC, partition) for partition in partitions])

    def revoke_now(self, *partitions: int) -> None:
        self.callbacks["on_revoke"](self, [TopicPartition(TOPIC, partition) for partition in partitions])

    def lose_now(self, *partitions: int) -> None:
        self.callbacks["on_lost"](self, [TopicPartition(TOPIC, partition) for partition in partitions])

    def poll(self, timeout_s: float) -> FakeMessage | None:
        try:
            turn = self.turns.get(timeout=min(timeout_s, 0.01))
        except queue.Empty:
            return None
        return turn if isinstance(turn, FakeMessage) else turn()

    def consume(self, count: int, timeout_s: float) -> list[FakeMessage]:
        turns, self.rest = self.rest, []
        return [turn for turn in turns if isinstance(turn, FakeMessage) or turn()]

    def incremental_assign(self, partitions: Sequence[Any]) -> None:
        self.calls.append(("assign", [each.partition for each in partitions]))
        self.owned += partitions

    def incremental_unassign(self, partitions: Sequence[Any]) -> None:
        self.calls.append(("unassign", [each.partition for each in partitions]))
        gone = {each.partition for each in partitions}
        self.owned = [each for each in self.owned if each.partition not in gone]

    def assignment(self) -> list[TopicPartition]:
        return self.owned

    def pause(self, partitions: Sequence[Any]) -> None:
        self.calls.append(("pause", [each.partition for each in partitions]))

    def resume(self, partitions: Sequence[Any]) -> None:
        self.calls.append(("resume", [each.partition for each in partitions]))

    def offsets_for_times(self, partitions: Sequence[Any], timeout: float) -> list[FakeOffset]:
        self.calls.append(("ask", [each.partition for each in partitions]))
        return [FakeOffset.of(each, self.ends) for each in partitions]

    def committed(self, partitions: Sequence[Any], timeout: float) -> list[FakeOffset]:
        self.calls.append(("committed", [each.partition for each in partitions]))
        return [FakeOffset.of(each, self.stored) for each in partitions]

    def position(self, partitions: Sequence[Any]) -> list[FakeOffset]:
        return [FakeOffset.of(each, self.positions) for each in partitions]

    def get_watermark_offsets(
        self, partition: Any, timeout: float | None = None, *, cached: bool = False
    ) -> tuple[int, int]:
        assert cached == (timeout is None), "a look asks no broker"
        return self.watermarks.get(partition.partition, (OFFSET_INVALID, OFFSET_INVALID))

    def seek(self, partition: Any) -> None:
        self.calls.append(("seek", partition.offset))

    def commit(self, *, offsets: Sequence[Any], asynchronous: bool) -> None:
        self.calls.append(("commit", {each.partition: each.offset for each in offsets}))

    def close(self) -> None:
        self.calls.append(("close", None))

    def named(self, name: str) -> list[Any]:
        """What the calls of this name were given, in order."""
        return [given for called, given in self.calls if called == name]


class FakeCluster(Cluster):
    """Brokers that need no connection; its only client is the consumer it is given."""

    def __init__(self, consumer: FakeConsumer, **settings: Any) -> None:
        super().__init__(LinkSettings(brokers="127.0.0.1:1", **settings), "back", "branchy.")
        self.consumer = consumer
        self.configs: list[dict[str, Any]] = []

    def client(self, kind: Callable[[dict[str, Any]], Any], *parts: Any) -> Any:
        self.configs.append({key: value for part in parts for key, value in part.items()})
        return self.consumer

    def partitions(self, topic: str, wanted: int | None = None) -> int:
        return 4
