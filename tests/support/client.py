"""A client without branchy's device: puts any message on a tier's queue and reads what comes back."""

from __future__ import annotations

import itertools
import queue
import time

import numpy as np

from branchy.core import topics, wire
from branchy.core.messages import Answer, Request
from branchy.transport.base import Arrived, Link, Message, Replied, Sink, TransportEvent

WAIT_S = 20.0
"""How long a test waits for what must come; only a failing test waits that long."""


def into(events: queue.SimpleQueue) -> Sink:
    """A sink that keeps what it is told."""

    def sink(*several: TransportEvent) -> None:
        for event in several:
            events.put(event)

    return sink


class Client:
    """Asks the tiers of one cascade over one link; its ids count from 0, and `replica` says where its answers go."""

    def __init__(self, link: Link, cascade: str, tiers: tuple[str, ...], model: str, replica: str = "0") -> None:
        self.link, self.cascade, self.model = link, cascade, model
        inbox = topics.answers(cascade, "device")
        queues = [
            name for tier in tiers for name in (topics.requests(cascade, tier), topics.dead_letters(cascade, tier))
        ]
        link.prepare([*queues, inbox, *(topics.answers(cascade, tier) for tier in tiers)], WAIT_S)
        self.events: queue.SimpleQueue = queue.SimpleQueue()
        self.inbox = link.replies(inbox, replica, into(self.events), WAIT_S)
        self.sender = link.sender(lambda *events: None, message_timeout_s=30.0, queue_limit=1000)
        self.ids = itertools.count()

    def ask(self, payload, *, to: str, budget_ms: float = 20_000.0, correlation: bytes = b"", **changes) -> str:
        """Send a request; returns its id, which is its correlation too unless there is another."""
        if isinstance(payload, np.ndarray):
            payload = {"sample" if payload.dtype == np.uint8 else "activation": payload}
        number = f"q{next(self.ids)}"
        fields = {"id": number, "model": self.model, "stage": to, "budget_ms": budget_ms, "payload": payload}
        request = Request(**{**fields, **changes})
        headers, body = wire.encode_request(request, wire.Stamp("event", "/test", time.time()))
        self.put(Message(headers, body), to=to, correlation=correlation or request.id.encode())
        return request.id

    def put(self, message: Message, *, to: str, correlation: bytes | None = b"c", reply: bool = True) -> None:
        """Send any message at all."""
        address = self.link.queue(topics.requests(self.cascade, to))
        reply_to = self.inbox.address if reply else None
        assert self.sender.send(address, message, "tag", correlation=correlation, reply_to=reply_to)

    def answer(self, timeout_s: float = WAIT_S) -> tuple[bytes | None, Answer]:
        """The next answer that comes, with its correlation."""
        while not isinstance(event := self.events.get(timeout=timeout_s), Replied):
            pass
        return event.correlation, wire.decode_answer(event.message.headers, event.message.body)

    def answers(self, n: int) -> dict[str, Answer]:
        """The next n answers by their request's id; none may come twice."""
        got = [self.answer()[1] for _ in range(n)]
        assert len({a.request for a in got}) == n
        return {a.request: a for a in got}

    def dead_letter(self, tier: str) -> Message:
        """The first dead letter of a tier."""
        events: queue.SimpleQueue = queue.SimpleQueue()
        source = self.link.requests(topics.dead_letters(self.cascade, tier), "reader-of-the-dead", into(events))
        source.start()
        try:
            while not isinstance(event := events.get(timeout=WAIT_S), Arrived):
                pass
            return event.deliveries[0].message
        finally:
            source.close()

    def close(self) -> None:
        self.inbox.close()
        self.sender.close()
        self.link.close()
