"""The Kafka client: sends samples to the first tier and hands on exactly one answer a request."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType

from branchy.config import DeviceSettings
from branchy.core import topics, wire
from branchy.core.access import DEVICE
from branchy.core.cascade import FULL, Array, StageSpec
from branchy.core.messages import Answer, EncodedSample, Request
from branchy.core.requester import MAX_IN_FLIGHT, Outcome, Requester, Schedule
from branchy.errors import NoAnswerError, TransportError, UsageError, WireError
from branchy.runner.events import Stamper, new_traceparent, uuid7
from branchy.store.bundle import Bundle
from branchy.transport import base as tr

log = logging.getLogger(__name__)

HEADER_ROOM_BYTES = 4096
"""Room for headers and the tensors' own, when a sample is held against a broker's limit."""
LOOK_UP_S = 0.5
"""Longest wait for an outcome: a Ctrl-C that comes just before Python starts to wait does not end the wait."""
SENDER_WAIT_S = 2.0
"""A new idempotent producer's first send waits up to a second for its producer id: not out of a request's deadline."""
FAULTS_SAID = 16
"""Most different faults that are warned of."""


class Device:
    """What a device does: asks the first tier and gets answers, matched by their correlation.

    Safe to share between threads. Usable once made; close it, or use it in a `with`.

    Args:
        bundle: a loaded bundle or its directory: digest, input and labels.
        settings: brokers, tier, deadline; `settings.bundle` is not read.
        link: a link to use instead of Kafka; the caller closes it.

    Raises:
        BundleError: the bundle cannot be loaded.
        UsageError: the tier is not in the bundle, or takes no samples.
        BrokerUnavailableError: no broker answered within `settings.connect_timeout_s`.
        TransportError: a topic is missing, or takes no message as large as a sample.

    Example:
        >>> with Device("saved_models/digits", settings) as device:
        ...     print(device.ask(sample).label)
    """

    def __init__(self, bundle: Bundle | Path | str, settings: DeviceSettings, link: tr.Link | None = None) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(Path(bundle))
        self.stage = _entrance(self.bundle, settings.tier)
        self.tiers = (FULL,) if self.stage.name == FULL else tuple(s.name for s in self.bundle.spec.stages)
        """Names that the answering tier may have."""
        self._deadline_ms = settings.deadline_ms
        timeout_s = (settings.deadline_ms + settings.grace_ms) / 1e3
        self._requester = Requester(
            model=self.bundle.digest,
            labels=self.bundle.spec.labels,
            tiers=frozenset(self.tiers),
            prefix=os.urandom(8),
            timeout_s=timeout_s,
        )
        self._stamp = Stamper(f"/branchy/{self.bundle.spec.name}/{settings.replica}")
        self._capped = self._again = 0
        self._said: set[str | None] = set()
        self._futures: dict[str, Future[Outcome]] = {}
        self._inbox: SimpleQueue[tr.TransportEvent | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        with ExitStack() as stack:
            self._connect(settings, timeout_s, link or _kafka(settings, stack), stack)
            self._open = stack.pop_all()
        self._thread = threading.Thread(target=self._work, name="device", daemon=True)
        self._thread.start()

    @property
    def has_certificate(self) -> bool:
        """Whether something was promised of what it asks.

        That is the bundle's whole cascade: not its full model, and not what is left behind a tier that is asked
        directly, which gets samples that the exits before it would have kept. Where it is False, no answer is
        handed on as `certified`.
        """
        return self.bundle.manifest.certificate is not None and self.stage.name == self.bundle.spec.stages[0].name

    def _connect(self, settings: DeviceSettings, timeout_s: float, link: tr.Link, stack: ExitStack) -> None:
        """Open inbox and sender; the inbox is ready before anything is sent."""
        cascade = settings.cascade or self.bundle.spec.name
        queue = topics.requests(cascade, self.stage.name)
        inbox = settings.reply_topic or topics.answers(cascade, DEVICE)
        largest = {queue: topics.sample_bytes(self.stage)}
        limit_bytes = link.prepare([queue, inbox], settings.connect_timeout_s, largest)[queue]
        if self.stage.input.size_bytes + HEADER_ROOM_BYTES > limit_bytes:
            raise TransportError(
                f"a sample is {self.stage.input.size_bytes} bytes, and topic {queue} takes at most {limit_bytes} "
                "a message with headers; raise its max.message.bytes"
            )
        self._queue = link.queue(queue)
        self._replies = link.replies(inbox, settings.replica, self._put, settings.connect_timeout_s)
        stack.callback(self._replies.close)
        self._sender = link.sender(self._put, message_timeout_s=timeout_s, queue_limit=2 * MAX_IN_FLIGHT)
        stack.callback(self._sender.close)
        self._sender.wait_ready(SENDER_WAIT_S)

    @property
    def counters(self) -> Counter[str]:
        """Answers that were not handed on, by why (see `Requester`).

        And requests that waited for a turn (`capped`), or that were sent `again`.
        """
        with self._lock:
            counts = Counter[str](self._requester.counters)
            counts["capped"], counts["again"] = self._capped, self._again
        return +counts

    def ask(self, sample: Array | EncodedSample) -> Answer:
        """Send a sample and wait for its answer, which may be a refusal (`answer.status`).

        Raises:
            UsageError: the sample is not what the bundle takes.
            NoAnswerError: none came within the deadline and its grace, or only one of another model.
        """
        outcome = self.submit(sample).result()
        if outcome.answer is None:
            raise NoAnswerError(f"request {outcome.request}: {outcome.fault}")
        return outcome.answer

    def submit(
        self,
        sample: Array | EncodedSample,
        *,
        index: int = 0,
        intended_s: float | None = None,
        again: str | None = None,
    ) -> Future[Outcome]:
        """Send a sample; the future's outcome comes with its answer, or when it is given up.

        Args:
            sample: of the shape and dtype of `bundle.spec.input`, or an image file's bytes.
            index: the caller's number for it.
            intended_s: when it was meant to be sent, by `time.monotonic()`; now unless told.
            again: `Outcome.request` of a request that got no answer, to send it under the same id. Each attempt is
                answered for itself: an answer to an earlier one is counted, not handed on.

        Raises:
            UsageError: the sample is not what the bundle takes, or the request that is sent again is in flight.
            WireError: it holds values that are not finite.
            NoAnswerError: the device is closed.
        """
        called_s = time.monotonic()
        request = Request(
            again or uuid7(),
            self.bundle.digest,
            self.stage.name,
            self._deadline_ms,
            self._payload(sample),
            new_traceparent(),
        )
        message = tr.Message(*wire.encode_request(request, self._stamp()))
        future: Future[Outcome] = Future()
        future.set_running_or_notify_cancel()  # it was sent: there is nothing to cancel
        with self._lock:
            if self._closed:
                raise NoAnswerError("the device is closed; nothing can be sent")
            if request.id in self._futures:
                raise UsageError(f"request {request.id} is in flight; send it again once it has got no answer")
            self._again += again is not None
            was_idle = not self._requester.in_flight
            now = time.monotonic()
            correlation = self._requester.send(
                request.id,
                index,
                now=now,
                intended_s=called_s if intended_s is None else intended_s,
                bytes_sent=message.size_bytes,
            )
            self._futures[request.id] = future
            taken = self._sender.send(
                self._queue, message, correlation, correlation=correlation, reply_to=self._replies.address
            )
        if not taken:
            self._inbox.put(tr.Sent(correlation, tr.SendError("the send queue is full", permanent=False)))
        elif was_idle:
            self._inbox.put(None)  # the thread slept without an alarm: it has one now
        return future

    def run(
        self, samples: Iterable[Array | EncodedSample], *, window: int | None = None, rate: float | None = None
    ) -> Iterator[Outcome]:
        """Send samples and yield their outcomes as they come; `outcome.index` counts the samples.

        Args:
            samples: as for `submit`.
            window: closed loop: most requests in flight, 1 unless told.
            rate: open loop: requests a second whatever comes back, up to 4,096 in flight. Latency counts
                from the moment a request was due, not from when it could be sent.

        Raises:
            UsageError: a wrong window or rate, or a sample that is not what the bundle takes.
        """
        return self._run(iter(samples), Schedule(window, rate))

    def _run(self, samples: Iterator[Array | EncodedSample], schedule: Schedule) -> Iterator[Outcome]:
        done: SimpleQueue[Future[Outcome]] = SimpleQueue()
        in_flight, sent, wait_s = 0, 0, None
        more = True
        while more or in_flight:
            while more and (wait_s := schedule.wait_s(time.monotonic(), in_flight)) == 0:
                sample = next(samples, None)
                if sample is None:
                    more, wait_s = False, None
                    break
                intended_s = schedule.send(time.monotonic())
                self.submit(sample, index=sent, intended_s=intended_s).add_done_callback(done.put)
                in_flight, sent = in_flight + 1, sent + 1
            self._capped = schedule.capped
            if not (more or in_flight):
                return
            try:
                future = done.get(timeout=LOOK_UP_S if wait_s is None else min(wait_s, LOOK_UP_S))
            except Empty:
                continue  # the next request is due, or it was time to look up
            in_flight -= 1
            yield future.result()

    def close(self) -> None:
        """Stop; requests in flight end with `NoAnswerError`. May be called twice."""
        with self._lock:
            self._closed = True
        self._inbox.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._open.close()

    def __enter__(self) -> Device:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Close it."""
        self.close()

    def _payload(self, sample: Array | EncodedSample) -> dict[str, Array] | EncodedSample:
        if isinstance(sample, EncodedSample):
            return sample
        spec = self.bundle.spec.input.tensor
        if sample.shape != spec.shape or sample.dtype.name != spec.dtype:
            raise UsageError(
                f"expected a sample of shape {spec.shape} and dtype {spec.dtype}, got {sample.shape} {sample.dtype}"
            )
        return {self.stage.inputs[0].tensor: sample}

    # --- the thread that takes what comes --------------------------------------------------------------------------

    def _work(self) -> None:
        why = "the device was closed before an answer came"
        try:
            while not self._closed:
                self._hand_on(self._next_outcomes())
        except TransportError as error:
            why = str(error)
            log.error("%s", why)
        finally:
            with self._lock:
                self._closed = True
                left = list(self._futures.values())
                self._futures.clear()
            for future in left:
                future.set_exception(NoAnswerError(why))

    def _put(self, *events: tr.TransportEvent) -> None:
        for event in events:
            self._inbox.put(event)

    def _next_outcomes(self) -> list[Outcome]:
        """Wait for something to come, or for the oldest request's time to be over."""
        with self._lock:
            wakeup = self._requester.wakeup
        try:
            event = self._inbox.get(timeout=None if wakeup is None else max(0.0, wakeup - time.monotonic()))
        except Empty:
            # Only now: answers that came in time are not given up because this thread was late.
            with self._lock:
                return self._requester.advance(time.monotonic())
        outcome = self._take(event, time.monotonic())
        return [outcome] if outcome else []

    def _take(self, event: tr.TransportEvent | None, now: float) -> Outcome | None:
        match event:
            case tr.Replied(correlation, message):
                answer = _read(message)
                if answer is not None and answer.certified and not self.has_certificate:
                    answer = replace(answer, certified=False)  # a tier cannot know that it is the first asked
                with self._lock:
                    return self._requester.take(correlation, answer, now)
            case tr.Sent(bytes() as correlation, tr.SendError(text)):
                with self._lock:
                    return self._requester.refuse(correlation, f"not sent: {text}", now)
            case tr.LinkState(link, up, detail):
                word = "up" if up else f"gone: {detail}"
                log.log(logging.INFO if up else logging.WARNING, "%s brokers %s", link, word)
            case tr.Failed(error):
                raise error
        return None

    def _hand_on(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.fault:
                self._say_once(outcome)
            with self._lock:
                future = self._futures.pop(outcome.request)
            future.set_result(outcome)

    def _say_once(self, outcome: Outcome) -> None:
        """Warn of the first request with a fault, not of the hundreds that follow it."""
        if outcome.fault not in self._said and len(self._said) < FAULTS_SAID:
            self._said.add(outcome.fault)
            log.warning("request %s: %s (not said again)", outcome.request, outcome.fault)


def _kafka(settings: DeviceSettings, stack: ExitStack) -> tr.Link:
    from branchy.transport.kafka import KafkaLink

    link = KafkaLink(settings.back, "back")
    stack.callback(link.close)
    return link


def _entrance(bundle: Bundle, tier: str | None) -> StageSpec:
    """The stage that takes a device's samples."""
    stage = bundle.spec.stage(tier or bundle.spec.stages[0].name)
    if stage.inputs[0].stage is not None:
        raise UsageError(
            f"tier {stage.name} takes what {stage.inputs[0].stage} sends up, not samples; "
            f"send to {bundle.spec.stages[0].name} or {FULL}"
        )
    return stage


def _read(message: tr.Message) -> Answer | None:
    try:
        return wire.decode_answer(message.headers, message.body)
    except WireError as error:
        log.debug("unreadable answer: %s", error)
        return None
