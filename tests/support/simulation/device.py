"""A device: the real `Requester`, asking again under the same id until it has an answer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from branchy.core import wire
from branchy.core.messages import Request
from branchy.core.requester import Outcome
from branchy.errors import WireError
from branchy.runner.events import Stamper
from branchy.transport.base import Message, Replied, Sent, TransportEvent
from simulation import toy
from simulation.broker import Fetcher, Place, Record
from simulation.network import Link
from simulation.plan import DIGEST, LABELS, Ask
from simulation.producer import LearntClock, Producer
from simulation.world import require

if TYPE_CHECKING:
    from simulation.cascade import Cascade

TIMEOUT_S = 3.2
MOST_DELAY, STEP_S = 1.5, 2e-3
"""Times a link's usual delay, and what a tier takes for a step."""
AGAIN_S, AGAIN_BUDGET_MS = 0.2, 1000.0
WRONG_MODEL = "f" * 64


class Attempt(NamedTuple):
    """A request as it was sent last; `calm` when nothing was wrong in the world then."""

    correlation: bytes
    budget_s: float
    calm: bool


class Device:
    """Sends what the plan says; all of its ids, and at times all of its samples, are other devices' too.

    Args:
        name: also of its link.
        partition: where its answers come to, perhaps with others'.

    Attributes:
        open: by number, what has no answer yet.
    """

    def __init__(self, cascade: Cascade, name: str, link: Link, partition: int) -> None:
        self._cascade, self._world, self._name, shape = cascade, cascade.world, name, cascade.plan.shape
        self.open: dict[int, Ask] = {}
        self._attempts: dict[int, Attempt] = {}
        self._first = shape.stages[0]
        self._requester = cascade.requester_class(
            model=DIGEST,
            labels=LABELS,
            tiers=frozenset(tier[0] for tier in shape.tiers),
            prefix=name.encode(),
            timeout_s=TIMEOUT_S,
        )
        self._stamp = Stamper("/device")
        self._asks: dict[int, Ask] = {}
        self._asked_s: dict[int, float] = {}
        self._alarm_at = float("inf")
        side = cascade.sides[self._first]
        self._address = Place("device.answers", partition)
        self._broker = side.broker
        # The request is sent and fetched, the answer too; behind a full send queue it waits for its turn first.
        turns = len(cascade.plan.asks) // shape.send_queue
        self._delay_s = MOST_DELAY * shape.delay_s * (4 + 2 * turns) + STEP_S
        self._requests = side.group.topic.name
        self._producer = Producer(
            self._world,
            name,
            side.broker,
            link,
            self._take,
            timeout_s=TIMEOUT_S,
            limit=lambda: 1000,
            clock=LearntClock(),
            monotonic=lambda: self._world.now,
            twice=shape.twice,
        )
        Fetcher(self._world, link, side.broker.topics[self._address.topic], partition, 0, self._receive)

    def ask(self, ask: Ask, partition: int | None = None) -> None:
        """Send it, for the first time."""
        self._world.say(
            self._name, "asks %d as %s (%s, kind %d, %.0f ms)",
            ask.number, ask.request, ask.sort, ask.kind, ask.budget_ms,
        )  # fmt: skip
        to = Place(self._requests, partition)
        if ask.sort == "garbage":
            self._producer.send(to, Message([("content-type", b"what")], b"garbage"), b"", reply_to=self._address)
        elif ask.sort == "no-reply":
            nowhere = Place("nowhere.answers", 0)
            correlation = b"nowhere %d" % ask.number
            self._producer.send(to, self._message(ask, ask.budget_ms), b"", correlation=correlation, reply_to=nowhere)
        else:
            self.open[ask.number] = self._asks[ask.number] = ask
            self._asked_s[ask.number] = self._world.now
            self._send(ask, to, ask.budget_ms)

    def _send(self, ask: Ask, to: Place, budget_ms: float) -> None:
        message = self._message(ask, budget_ms)
        now = self._world.now
        correlation = self._requester.send(ask.request, ask.number, now=now, intended_s=now)
        self._attempts[ask.number] = Attempt(correlation, budget_ms / 1e3, self._cascade.calm)
        self._producer.send(to, message, correlation, correlation=correlation, reply_to=self._address)
        self._set_alarm()

    def _message(self, ask: Ask, budget_ms: float) -> Message:
        model = WRONG_MODEL if ask.sort == "wrong-model" else DIGEST
        stage = "nowhere" if ask.sort == "wrong-stage" else self._first
        request = Request(ask.request, model, stage, budget_ms, {"sample": toy.sample(ask)})
        return Message(*wire.encode_request(request, self._stamp()))

    def _receive(self, _: int, records: list[Record]) -> None:
        for record in records:
            self._take(Replied(record.correlation, record.message))

    def _take(self, event: TransportEvent) -> None:
        now = self._world.now
        match event:
            case Replied(correlation, message):
                try:
                    answer = wire.decode_answer(message.headers, message.body)
                except WireError:
                    answer = None
                self._end(self._requester.take(correlation, answer, now))
            case Sent(bytes() as correlation, error) if error is not None and correlation:
                self._end(self._requester.refuse(correlation, error.text, now))

    def _end(self, outcome: Outcome | None) -> None:
        if outcome is None:
            return
        self._world.say(
            self._name, "%d ends: %s", outcome.index, outcome.answer.reason if outcome.answer else outcome.fault
        )
        self._check_time(outcome)
        if outcome.answer is not None:
            asked_s = self._world.now - self._asked_s[outcome.index]
            self._cascade.ledger.hand_on(self._asks[outcome.index], outcome.answer, asked_s)
            self.open.pop(outcome.index, None)
        elif outcome.index in self.open:
            self._world.after(AGAIN_S, partial(self._ask_again, outcome.index))

    def _check_time(self, outcome: Outcome) -> None:
        """While nothing is wrong, whoever asks is answered within its budget and the way there and back.

        What a tier that has only just started does not know of a request's age comes on top (`ClockOffset`). What
        a tier with enough in hand leaves with the brokers is answered once it is fetched, if its budget is over.
        """
        attempt = self._attempts[outcome.index]
        if not attempt.calm or outcome.index not in self.open:
            return
        records = self._broker.awaited[self._address, attempt.correlation]
        allowed_s = max((max(attempt.budget_s + r.missed_s, r.held_back_s) for r in records), default=attempt.budget_s)
        late_s = outcome.latency_s - allowed_s - self._delay_s
        told = (self._name, outcome.index, late_s, outcome.fault)
        require(outcome.answer is not None and late_s <= 0, "deadline of the device", "%s: %d %.3f s late, %s", *told)

    def _ask_again(self, number: int) -> None:
        if number in self.open:
            self._send(self.open[number], Place(self._requests), AGAIN_BUDGET_MS)

    def _set_alarm(self) -> None:
        wakeup = self._requester.wakeup
        if wakeup is not None and wakeup < self._alarm_at:
            self._alarm_at = wakeup
            self._world.after(max(0.0, wakeup - self._world.now), self._wake)

    def _wake(self) -> None:
        self._alarm_at = float("inf")
        for outcome in self._requester.advance(self._world.now):
            self._end(outcome)
        self._set_alarm()
