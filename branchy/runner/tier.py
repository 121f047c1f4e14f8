"""A tier at work: takes events from every side, one at a time, asks the machine, and does what it says.

Whoever brings an event works it off (a transport's thread, the executor's), unless another thread is at it,
which then takes this one too. So a lone request wakes no thread but those that a broker or the model wakes;
handing each event to a thread of the tier's own cost more than everything else that a tier does.
The thread in `run` sleeps until something is due.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from queue import Empty, SimpleQueue
from typing import Any, Literal, TypeVar, cast

from branchy.core import tier_events as ev
from branchy.core import wire
from branchy.core.record import record
from branchy.core.tier_machine import TierMachine
from branchy.core.tier_model import TierLimits, TierModel
from branchy.errors import WireError
from branchy.runner.events import Stamper, uuid7
from branchy.runner.executor import Executor
from branchy.transport import base as tr

log = logging.getLogger(__name__)

DRAIN_S = 10.0
"""How long a tier that is told to stop waits for its last acknowledgements."""
LOOK_AGAIN_S = 0.05
"""How often a full send queue is tried again."""
TURNS = 2
"""Most turns in a row of a thread that brought an event, and most quick batches a turn: it has work of its own."""
LOGGED = 100
"""So many dead letters are logged one by one, then each so-many-th: a flood of garbage must not flood the log."""


@record
class Front:
    """The way up: a sender and the inbox that its answers come back to."""

    sender: tr.Sender
    replies: tr.ReplyInbox
    queue: tr.Address


@record
class Back:
    """The way down: where requests come from, and a sender for answers and dead letters."""

    source: tr.RequestSource
    sender: tr.Sender
    dead_letters: tr.Address


@record
class _Tag:
    """Marks a send, to know what its report is about."""

    kind: Literal["answer", "dead", "courtesy", "up"]
    key: Any


_SENT = {"answer": "an answer", "dead": "a dead letter", "courtesy": "an error answer"}

_Event = tr.TransportEvent | ev.Computed | ev.Drain
T = TypeVar("T")


class Tier:
    """One replica of one tier.

    Built in two steps, as the transports report into it: make it, open the links with `sink`,
    then `run` with them.

    Args:
        name: the tier's name.
        models: what it runs, the first being the one that a request without a digest means.
        limits: its bounds.
        clock: monotonic, in seconds.

    Attributes:
        machine: makes its decisions.
        links_up: by link, what was last said of its brokers; nothing of a link that never lost them.
    """

    def __init__(
        self, name: str, models: list[TierModel], limits: TierLimits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self.machine = TierMachine(name, models, limits, correlation_prefix=os.urandom(8))
        self.links_up: dict[str, bool] = {}
        self._model = models[0]
        self._clock = clock
        self._inbox: deque[_Event] = deque()
        self._turn = threading.Lock()  # held until `run` begins, and by the thread that takes a step
        self._turn.acquire()
        self._alarm: SimpleQueue[None] = SimpleQueue()  # unlike an event, it may be set by a signal handler
        self._awake_at = 0.0
        self._error: BaseException | None = None
        self._stamp = Stamper(f"/branchy/{name}")
        self._deliveries: dict[ev.Token, tr.Delivery] = {}
        # What is to be sent goes out together at the end of a step: librdkafka puts what comes at once into one request
        # to a broker, and what comes between two of them into one each.
        self._unsent_up: list[tuple[bytes, tr.Message]] = []
        self._unsent: deque[tuple[ev.SendAnswer | ev.DeadLetter, tr.Message | None]] = deque()
        self._computed: deque[ev.Computed] = deque()
        self._back_full = False
        self._leaving: list[tr.Revoked] = []
        self._stopping_since: float | None = None
        self._breaker_epoch = 0
        self._dead = self._undelivered = 0
        self._effects: Mapping[type, Callable[[Any], None]] = {
            ev.Submit: self._submit,
            ev.Forward: self._forward,
            ev.SendAnswer: self._answer,
            ev.DeadLetter: lambda effect: self._unsent.append((effect, None)),
            ev.Forget: self._forget,
            ev.Settle: self._settle,
            ev.Pause: lambda effect: self._back.source.pause(),
            ev.Resume: lambda effect: self._back.source.resume(),
            ev.PurgeFront: self._purge_front,
        }

    def sink(self, *events: tr.TransportEvent | ev.Computed) -> None:
        """Take events of a transport or the executor, from any thread; never waits for another."""
        self._inbox.extend(events)
        for _ in range(TURNS):
            if not self._inbox or not self._turn.acquire(blocking=False):
                return  # who is at it looks again once it is through
            try:
                self._take_turn()
            finally:
                self._turn.release()
        if self._inbox:
            self._alarm.put(None)

    def stop(self) -> None:
        """Settle what there is and return from `run`; safe in a signal handler."""
        self._inbox.append(ev.Drain())
        self._alarm.put(None)

    def between_turns(self, read: Callable[[float], T], timeout_s: float) -> T | None:
        """Call `read` with the time while nothing changes, from any thread; None when no turn ended in time."""
        if not self._turn.acquire(timeout=timeout_s):
            return None
        try:
            return read(self._clock())
        finally:
            self._turn.release()
            if self._inbox:  # it came meanwhile, and nobody looks after it
                self._alarm.put(None)

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping_since is not None

    def run(self, back: Back, front: Front | None, executor: Executor) -> None:
        """Work until `stop`, then settle what is under way; the caller closes what it gave."""
        self.begin(back, front, executor)
        try:
            self._take_turn()
        finally:
            self._turn.release()
        while not self.finished:
            self._sleep()
            with self._turn:
                self._take_turn()
            if self._error is not None:
                raise self._error
        unacknowledged = back.sender.flush(1.0)
        if unacknowledged or not self.machine.idle:
            log.warning("stopped with %d answers not acknowledged; their requests will be redelivered", unacknowledged)

    def _take_turn(self) -> None:
        """Take what is there, and have `run` wake in time for what is due next; the caller has the turn."""
        events = [self._inbox.popleft() for _ in range(len(self._inbox))]
        try:
            self.step(events)
        except BaseException as error:
            self._error = error  # it ends the thread that brought the event, and `run` with it
            self._alarm.put(None)
            raise
        wait_s = self.wait_s
        if self._clock() + (math.inf if wait_s is None else wait_s) < self._awake_at or self.finished:
            self._alarm.put(None)

    def _sleep(self) -> None:
        """Until something is due or there is an alarm."""
        with self._turn:
            wait_s = self.wait_s
            self._awake_at = math.inf if wait_s is None else self._clock() + wait_s
        if not self._inbox:  # else it came while the turn was held here, and nobody looks after it
            with contextlib.suppress(Empty):
                self._alarm.get(timeout=wait_s)

    # --- one turn at a time: what `run` is made of, for a caller with a loop and a clock of its own ----------------

    def begin(self, back: Back, front: Front | None, executor: Executor) -> None:
        """Take requests from now on."""
        self._back, self._front, self._executor = back, front, executor
        back.source.start()

    def step(self, events: Iterable[tr.TransportEvent | ev.Computed | ev.Drain]) -> None:
        """Take these events, let time pass, and do what the machine says."""
        for event in events:
            self._take(event)
        self._advance()
        for _ in range(TURNS):
            if not self._computed:
                break
            self._handle(self._computed.popleft())
            self._advance()
        self._send()
        self._inbox.extend(self._computed)  # the rest has a turn of its own
        self._computed.clear()
        self._let_go()
        if self.machine.way_up.breaker.epoch != self._breaker_epoch:
            self._say_breaker()

    def _advance(self) -> None:
        """Send what there is before anything else is looked at, then let time pass."""
        self._send()
        self._do(self.machine.advance(self._clock()))

    def _send(self) -> None:
        """Send together what came of the events so far."""
        if self._unsent_up:
            self._send_up()
        if self._unsent or self._back_full:
            self._send_back()

    @property
    def wait_s(self) -> float | None:
        """How long until the next step when no event comes; None: as long as none does."""
        wakeup = self.machine.wakeup()
        wait_s = math.inf if wakeup is None else max(0.0, wakeup - self._clock())
        if self._unsent or self._stopping_since is not None:
            wait_s = min(wait_s, LOOK_AGAIN_S)
        return None if wait_s == math.inf else wait_s

    @property
    def finished(self) -> bool:
        """Whether it was told to stop and has settled what it can."""
        if self._stopping_since is None:
            return False
        return (self.machine.idle and not self._unsent) or self._clock() > self._stopping_since + DRAIN_S

    # --- events --------------------------------------------------------------------------------------------------

    def _take(self, event: _Event) -> None:
        match event:
            case tr.Arrived(deliveries):
                for delivery in deliveries:
                    self._handle(self._request(delivery))
            case tr.Replied(correlation, message):
                if correlation is not None:
                    self._handle(ev.FrontAnswered(correlation, _read_answer(message)))
            case tr.Sent(_Tag() as tag, error):
                self._take_report(tag, error)
            case tr.Revoked(tokens, _, lost):
                self._handle(ev.TakenAway(tokens, lost))
                self._leaving.append(event)
                for token in tokens:
                    if not self.machine.holds(token):  # no report of theirs makes the machine settle them any more
                        self._deliveries.pop(token, None)
            case tr.LinkState(link, up, detail):
                self.links_up[link] = up
                log.log(
                    logging.INFO if up else logging.WARNING, "%s brokers %s %s", link, "up" if up else "down", detail
                )
            case tr.Failed(error):
                self._error = self._error or error  # not in place of the bug that it came of
                self._alarm.put(None)
            case ev.Computed():
                self._handle(event)
            case ev.Drain():
                if self._stopping_since is None:
                    self._stopping_since = self._clock()
                    self._handle(event)

    def _take_report(self, tag: _Tag, error: tr.SendError | None) -> None:
        if tag.kind == "up":
            if error is not None:
                self._handle(ev.ForwardFailed(tag.key, error.text))
            return
        if error is not None:
            self._undelivered += 1
            if _is_logged(self._undelivered):
                log.warning("%s was not delivered (%d so far): %s", _SENT[tag.kind], self._undelivered, error.text)
        if tag.kind != "courtesy":
            failed = error and ev.SendFailed(tag.key, error.permanent, error.text, error.too_large)
            self._handle(failed or ev.Acknowledged(tag.key))

    def _handle(self, event: ev.Event) -> None:
        self._do(self.machine.handle(event, self._clock()))

    def _request(self, delivery: tr.Delivery) -> ev.Came | ev.Malformed:
        """What came, read and checked as far as that goes without knowing the stage."""
        message = delivery.message
        self._deliveries[delivery.token] = delivery
        code, text = "transport", delivery.fault
        if text is None and delivery.reply_to is None:
            code, text = "reply-to", "expected a reply address, got none"
        if text is None:
            try:
                request = wire.decode_request(
                    message.headers,
                    message.body,
                    model=self._model.digest,
                    stage=self._model.stages[0].name,
                    new_id=uuid7,
                )
                return ev.Came(delivery.token, request, delivery.reply_to, delivery.correlation, delivery.age_s)
            except WireError as error:
                code, text = error.code, str(error)
        request_id = wire.request_id(message.headers)
        size_bytes = len(message.body)
        return ev.Malformed(delivery.token, request_id, delivery.reply_to, delivery.correlation, code, text, size_bytes)

    # --- effects -------------------------------------------------------------------------------------------------

    def _do(self, effects: list[ev.Effect]) -> None:
        for effect in effects:
            self._effects[type(effect)](effect)

    def _submit(self, effect: ev.Submit) -> None:
        computed = self._executor.submit(effect)
        if computed is not None:
            self._computed.append(computed)

    def _forward(self, effect: ev.Forward) -> None:
        front = self._front
        if front is None:
            raise RuntimeError("a tier without a front was asked to forward")
        try:
            headers, body = wire.encode_request(effect.request, self._stamp(), effect.uplink.dtype)
        except WireError as error:
            self._handle(ev.ForwardFailed(effect.correlation, str(error)))
            return
        message = tr.Message(headers, body)
        self._unsent_up.append((effect.correlation, message))
        self._handle(ev.ForwardEncoded(effect.correlation, message.size_bytes))

    def _send_up(self) -> None:
        unsent, self._unsent_up = self._unsent_up, []
        for correlation, message in unsent:
            front = cast(Front, self._front)
            tag = _Tag("up", correlation)
            to, reply_to = front.queue, front.replies.address
            if not front.sender.send(to, message, tag, correlation=correlation, reply_to=reply_to):
                self._handle(ev.ForwardFailed(correlation, "the front's send queue is full"))

    def _answer(self, effect: ev.SendAnswer) -> None:
        if effect.token is not None:
            self._deliveries.pop(effect.token, None)  # only dead letters need the message again
        message = tr.Message(*wire.encode_answer(effect.answer, self._stamp(), effect.traceparent))
        self._unsent.append((effect, message))

    def _send_back(self) -> None:
        """Send in order: behind one that found the queue full, all wait."""
        while self._unsent and self._try_send(*self._unsent[0]):
            self._unsent.popleft()
        if self._back_full != bool(self._unsent):
            self._back_full = bool(self._unsent)
            self._handle(ev.BackFull(self._back_full))

    def _try_send(self, effect: ev.SendAnswer | ev.DeadLetter, message: tr.Message | None) -> bool:
        if isinstance(effect, ev.DeadLetter) or message is None:
            if effect.token not in self._deliveries:
                return True  # lost while it waited for room: another replica gets it
            return self._send_dead_letter(cast(ev.DeadLetter, effect))
        tag = _Tag("courtesy", None) if effect.token is None else _Tag("answer", effect.token)
        return self._back.sender.send(effect.reply_to, message, tag, correlation=effect.correlation)

    def _send_dead_letter(self, effect: ev.DeadLetter) -> bool:
        """The message as it came and why it is there; its reply address too, for when it is sent again."""
        delivery, text = self._deliveries[effect.token], effect.text
        if effect.bare:
            text = f"{effect.token} is left out, it is too large for the dead letters: {text}"
            delivery = tr.Delivery(effect.token, tr.Message((), b""), 0.0, None, None)
        why = [
            (wire.ERROR_CODE, effect.code.encode()),
            (wire.ERROR_TEXT, text.encode()[:1000]),
            (wire.ERROR_TIER, self.name.encode()),
        ]
        message = tr.Message([*delivery.message.headers, *why], delivery.message.body)
        sent = self._back.sender.send(
            self._back.dead_letters,
            message,
            _Tag("dead", effect.token),
            correlation=delivery.correlation,
            reply_to=delivery.reply_to,
        )
        if sent:
            self._dead += 1
            if _is_logged(self._dead):
                log.warning("dead letter %d (%s): %s", self._dead, effect.code, text)
        return sent

    def _forget(self, effect: ev.Forget) -> None:
        self._deliveries.pop(effect.token, None)
        if effect.superseded:
            self._back.source.settle(effect.token)

    def _settle(self, effect: ev.Settle) -> None:
        self._deliveries.pop(effect.token, None)
        self._back.source.settle(effect.token)

    def _purge_front(self, effect: ev.PurgeFront) -> None:
        if self._front is not None:
            self._send_up()  # what was to go up goes the same way as what has
            self._front.sender.purge()

    def _say_breaker(self) -> None:
        breaker = self.machine.way_up.breaker
        self._breaker_epoch = breaker.epoch
        if breaker.state == "open":
            log.warning("circuit breaker open: %d of the last %d forwards failed", *breaker.opened_by)
        else:
            log.info("circuit breaker closed: the front answers again")

    # --- stopping ------------------------------------------------------------------------------------------------

    def _let_go(self) -> None:
        """Tell the transport of each revocation once nothing of it is under way here."""
        if self._leaving:
            still = [r for r in self._leaving if not r.lost and any(map(self.machine.holds, r.tokens))]
            for revoked in self._leaving:
                if revoked not in still:
                    revoked.done.set()
            self._leaving = [r for r in still if not r.done.is_set()]


def _is_logged(number: int) -> bool:
    return number <= LOGGED or number % LOGGED == 0


def _read_answer(message: tr.Message) -> Any:
    try:
        return wire.decode_answer(message.headers, message.body)
    except WireError as error:
        log.warning("an answer from the front cannot be read: %s", error)
        return None
