"""Addresses, tokens, and the reply headers of Spring Kafka's request-reply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

CORRELATION = "kafka_correlationId"
REPLY_TOPIC = "kafka_replyTopic"
REPLY_PARTITION = "kafka_replyPartition"
_OWN = frozenset({CORRELATION, REPLY_TOPIC, REPLY_PARTITION})


class KafkaAddress(NamedTuple):
    """A topic, and where it matters its partition."""

    topic: str
    partition: int | None = None


class Assignment(NamedTuple):
    """One partition for as long as this member owns it; `epoch` counts the assignments it was given."""

    topic: str
    partition: int
    epoch: int


class KafkaToken(NamedTuple):
    """A delivery: opaque above this package."""

    assignment: Assignment
    offset: int

    def __str__(self) -> str:
        """Coordinates, for a person who looks for the record."""
        return f"{self.assignment.topic} [{self.assignment.partition}] offset {self.offset}"


class Envelope(NamedTuple):
    """What the transport's own headers say, and the headers that remain.

    With a `fault`, a reply address of which nothing can be made, its headers remain too: who mends what is wrong
    has them, where the message lies among the dead letters.
    """

    headers: list[tuple[str, bytes]]
    correlation: bytes | None
    reply_to: KafkaAddress | None
    fault: str | None


def reply_headers(correlation: bytes | None, reply_to: KafkaAddress | None) -> list[tuple[str, bytes]]:
    """The headers that ask for an answer, or pair one with its request."""
    headers = []
    if correlation is not None:
        headers.append((CORRELATION, correlation))
    if reply_to is not None:
        headers.append((REPLY_TOPIC, reply_to.topic.encode()))
        if reply_to.partition is not None:
            headers.append((REPLY_PARTITION, reply_to.partition.to_bytes(4, "big")))
    return headers


def open_envelope(
    headers: Sequence[tuple[str, bytes | None]], complaint: Callable[[KafkaAddress], str | None]
) -> Envelope:
    """Take the transport's headers out of a message's; of repeated ones the first counts.

    Args:
        headers: as they came; a header without a value is taken for an empty one.
        complaint: why a reply address is not allowed, None when it is.
    """
    own: dict[str, bytes] = {}
    rest = []
    for name, value in headers:
        if name in _OWN:
            own.setdefault(name, value or b"")
        else:
            rest.append((name, value or b""))
    correlation = own.pop(CORRELATION, None)
    if REPLY_TOPIC not in own:
        return Envelope(rest, correlation, None, None)
    try:
        address = KafkaAddress(own[REPLY_TOPIC].decode("ascii"), _partition(own.get(REPLY_PARTITION)))
        fault = complaint(address)
    except ValueError:
        topic, partition = own[REPLY_TOPIC], own.get(REPLY_PARTITION)
        fault = f"reply address is malformed: {topic!r:.80}, {partition!r:.40}"
    if fault is not None:
        return Envelope([*rest, *own.items()], correlation, None, fault)
    return Envelope(rest, correlation, address, None)


def _partition(value: bytes | None) -> int | None:
    """Four bytes, big-endian, as Spring writes it; or a number in ASCII, for a person with kcat.

    Four ASCII digits are a number: as big-endian they would mean partition 808,464,432 or above.
    """
    if value is None:
        return None
    if len(value) == 4 and not value.isdigit():
        return int.from_bytes(value, "big", signed=True)
    if not value.isdigit() or len(value) > 10:
        raise ValueError("neither four bytes nor an ASCII number")
    return int(value)
