"""A requester without branchy's device: it measures round trips and adds as little as can be."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from branchy.config import LinkSettings
from branchy.core.messages import Reason
from branchy.core.wire import decode_answer
from branchy.transport.kafka import KafkaLink
from branchy.transport.kafka.addresses import CORRELATION, KafkaAddress, reply_headers
from branchy.transport.kafka.config import COMMON, CONSUMER, EMBEDDED_CONSUMER, PRODUCER
from branchy.transport.kafka.watermarks import watermarks

PATIENCE_S = 20.0

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request ready to be sent: headers without the reply's, and body."""

    headers: Headers
    body: bytes


class Kind(NamedTuple):
    """What an answer is: its reason, and by how many tiers it went."""

    reason: Reason
    hops: int


SURE = Kind("confident", 1)
"""By the first tier that is asked."""


def make_topics(brokers: str, names: Sequence[str]) -> bool:
    """See to it that topics are there; returns whether the brokers are the embedded one."""
    link = KafkaLink(LinkSettings(brokers=brokers), "bench")
    link.prepare(names, PATIENCE_S)
    embedded = not link.capabilities.append_time
    link.close()
    return embedded


def consumer_settings(embedded: bool) -> dict[str, Any]:
    """What branchy's consumers are told, by the kind of brokers."""
    return {**COMMON, **CONSUMER, **(EMBEDDED_CONSUMER if embedded else {})}


class Client:
    """Sends prepared requests to a topic and waits for their replies.

    Whoever refuses, or answers in somebody's place, is quick. So all answers are looked at once the time is taken.

    Args:
        brokers: `HOST:PORT`.
        topic: of the requests.
        replies: the topic that answers come back on; this client alone reads it.
        kind: what each answer must be.
    """

    def __init__(self, brokers: str, topic: str, replies: str, kind: Kind) -> None:
        self._topic, self._kind = topic, kind
        self._came: list[Message] = []
        self._address = KafkaAddress(replies, 0)
        embedded = make_topics(brokers, [topic, replies])
        self._producer = Producer({**COMMON, **PRODUCER, "bootstrap.servers": brokers})
        self._consumer = Consumer({**consumer_settings(embedded), "bootstrap.servers": brokers, "group.id": "unused"})
        _, high = watermarks(self._consumer, replies, 0, PATIENCE_S)
        self._consumer.assign([TopicPartition(replies, 0, high)])

    def one_in_flight(self, requests: Sequence[Prepared]) -> list[float]:
        """Send the next when the last is answered; the round trips in seconds."""
        took = []
        for request in requests:
            start = time.perf_counter()
            correlation = self._send(request)
            while _correlation(self._receive()) != correlation:
                pass
            took.append(time.perf_counter() - start)
        self._check()
        return took

    def windowed(self, requests: Sequence[Prepared], window: int) -> float:
        """Keep `window` requests in flight until all are answered; seconds in all."""
        start = time.perf_counter()
        todo = iter(requests)
        waiting = {self._send(request) for request in islice(todo, window)}
        while waiting:
            waiting.discard(_correlation(self._receive()))
            waiting.update(self._send(request) for request in islice(todo, window - len(waiting)))
        took_s = time.perf_counter() - start
        self._check()
        return took_s

    def all_at_once(self, requests: Sequence[Prepared], then: Callable[[], object]) -> None:
        """Send everything, call `then` when the broker has it, and wait until all are answered."""
        waiting = {self._send(request) for request in requests}
        if self._producer.flush(PATIENCE_S):
            raise RuntimeError(f"the broker did not take all requests on {self._topic}")
        then()
        while waiting:
            waiting.discard(_correlation(self._receive()))
        self._check()

    def sample(self, request: Prepared) -> Prepared:
        """The answer to one request, as it came, less its correlation."""
        self._send(request)
        reply = self._receive()
        return Prepared([h for h in reply.headers() or [] if h[0] != CORRELATION], reply.value() or b"")

    def close(self) -> None:
        """Free both sides."""
        self._producer.flush(PATIENCE_S)
        self._consumer.close()

    def _send(self, request: Prepared) -> bytes:
        correlation = uuid.uuid4().bytes
        headers: Any = [*request.headers, *reply_headers(correlation, self._address)]
        self._producer.produce(self._topic, request.body, headers=headers)
        self._producer.poll(0)
        return correlation

    def _receive(self) -> Message:
        message = self._consumer.poll(PATIENCE_S)
        if message is None or message.error():
            raise RuntimeError(f"no reply on {self._address.topic}: {message and message.error()}")
        self._came.append(message)
        return message

    def _check(self) -> None:
        """Look at what came since the last look.

        Raises:
            RuntimeError: not all answers are what they must be.
        """
        came, self._came = self._came, []
        answers = [decode_answer(message.headers() or [], message.value() or b"") for message in came]
        kinds = Counter(Kind(answer.reason, len(answer.hops)) for answer in answers)
        if set(kinds) != {self._kind}:
            found = ", ".join(f"{number} {kind.reason} by {kind.hops} tiers" for kind, number in kinds.items())
            expected = f"{self._kind.reason} by {self._kind.hops} tiers"
            raise RuntimeError(f"{self._topic}: expected answers that are {expected}, got {found}")


def _correlation(message: Message) -> bytes:
    return dict(message.headers() or [])[CORRELATION] or b""
