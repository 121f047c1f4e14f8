"""`branchy serve`: load a bundle, check it, open both sides' links, and run the tier until it is told to stop."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TypeVar, cast

from branchy.config import LinkSettings, ServeSettings
from branchy.core import topics
from branchy.core.cascade import Array, CascadeSpec, PolicyName
from branchy.core.messages import EncodedSample
from branchy.core.tier_model import TierLimits
from branchy.datasets import images
from branchy.errors import BranchyError, BrokerUnavailableError, TransportError, UsageError
from branchy.runner.executor import Executor
from branchy.runner.format_choice import load_quickest
from branchy.runner.health import Health
from branchy.runner.tier import Back, Front, Tier
from branchy.runner.tier_loading import Loaded, load_tier
from branchy.store.bundle import Bundle
from branchy.transport.base import Link

log = logging.getLogger(__name__)

BROKER_WAIT_S = 5.0
"""How long one attempt at a broker takes; a tier tries again until it is told to stop."""
BACK_MESSAGE_TIMEOUT_S = 60.0
FRONT_MESSAGE_TIMEOUT_S = 30.0
SEND_QUEUE = 10_000
SENDER_WAIT_S = 2.0
"""A new idempotent producer's first send waits up to a second for its producer id; a tier is ready after that."""
HEADER_ROOM_BYTES = 4096
"""Room for headers and the tensors' own, when a payload is held against a broker's limit."""
GC_EVERY = 20_000
"""Objects between two looks of the garbage collector, which leaves out what was loaded before (a tenth of the work)."""

OpenLink = Callable[[LinkSettings, str], Link]
T = TypeVar("T")


class StoppedError(BranchyError):
    """The tier was told to stop before it was ready."""


def serve(
    settings: ServeSettings,
    open_link: OpenLink,
    *,
    policy: PolicyName | None = None,
    thresholds: Mapping[str, float] | float | None = None,
    ready_file: Path | None = None,
) -> None:
    """Run one tier until SIGTERM or SIGINT, then settle what is under way.

    Args:
        settings: which tier, of what, between which brokers.
        open_link: how a side's brokers are reached.
        policy: exit policy instead of the bundle's.
        thresholds: thresholds instead of the bundle's, for every exit or by stage.
        ready_file: written, with this process' id, when requests sent from then on are taken.

    Raises:
        UsageError: there is no folder to write the ready file to.
        BranchyError: as `load_tier` or `load_quickest`; the health port cannot be had; or a payload is over a
            broker's limit. A broker that is not there is not an error: the tier says so and tries again.
    """
    if ready_file is not None and not os.access(ready_file.parent, os.W_OK):
        raise UsageError(f"--ready-file {ready_file}: expected a folder to write to, got {ready_file.parent}; make it")
    health = Health()
    with ExitStack() as stack:
        if settings.health.port:
            from branchy.runner.health_port import HealthPort  # a tier without one needs no HTTP, nor prometheus_client

            stack.enter_context(closing(HealthPort(settings.health, health)))
        bundle = Bundle.load(settings.bundle)
        loaded = (
            load_quickest(bundle, settings.tier, settings.threads, policy, thresholds)
            if settings.format == "auto"
            else load_tier(bundle, settings.tier, settings.format, settings.threads, policy, thresholds)
        )
        health.loaded(_cascade(settings, loaded), loaded.model.stages[0].name, loaded.model.digest)
        _run(settings, loaded, open_link, health, ready_file, stack)


def _run(
    settings: ServeSettings,
    loaded: Loaded,
    open_link: OpenLink,
    health: Health,
    ready_file: Path | None,
    stack: ExitStack,
) -> None:
    """Open both sides, then work until told to stop; what is opened is closed by the stack."""
    limits = TierLimits(
        batch_size=settings.batch_size,
        pending=settings.pending,
        backlog=settings.backlog,
        unsettled=2 * (settings.backlog + settings.pending),
        way_back_s=settings.way_back_ms / 1e3,
        window_s=settings.window_s,
        probe_s=settings.probe_s,
    )
    tier = Tier(loaded.model.stages[0].name, [loaded.model], limits)
    executor = Executor(loaded.engines, partial(_decode, loaded.spec), tier.sink)
    stopping = threading.Event()
    stack.callback(executor.close)
    stack.enter_context(_stop_on_signal(tier, stopping))
    try:
        health.waits_for("the front's brokers")
        front = None if loaded.model.last else _open_front(settings, loaded, open_link, tier, stack, stopping)
        health.waits_for("the back's brokers")
        back = _open_back(settings, loaded, open_link, tier, stack, stopping)
    except StoppedError:
        log.info("stopped before it was ready")
        return
    _announce(back, front, ready_file, tier.name, stopping, stack)
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_EVERY)
    health.runs(tier, back, executor)
    tier.run(back, front, executor)
    counted = ", ".join(f"{word} {n}" for word, n in sorted(tier.machine.counters.items()))
    log.info("tier %s stopped: %s", tier.name, counted or "nothing came")


def _decode(spec: CascadeSpec, sample: EncodedSample) -> Array:
    return cast(Array, images.decode_received(sample, spec.input))


# --- links -----------------------------------------------------------------------------------------------------------


def _open_front(
    settings: ServeSettings,
    loaded: Loaded,
    open_link: OpenLink,
    tier: Tier,
    stack: ExitStack,
    stopping: threading.Event,
) -> Front:
    """The way up; its inbox is there before this replica takes any request."""
    cascade, stage = _cascade(settings, loaded), loaded.model.stages[-1]
    queue = topics.requests(cascade, stage.successors[0])
    inbox = settings.reply_topic or topics.answers(cascade, tier.name)
    link = open_link(settings.front or settings.back, "front")
    stack.callback(link.close)
    sent_bytes = topics.request_bytes(stage)
    largest = {queue: topics.all_topics(loaded.spec, cascade)[queue]}  # as its own tier expects: a sample comes larger
    sizes = _until_reached(partial(link.prepare, [queue, inbox], BROKER_WAIT_S, largest), stopping)
    _check_room(f"an activation of stage {stage.name}", sent_bytes, queue, sizes[queue])
    sender = link.sender(tier.sink, message_timeout_s=FRONT_MESSAGE_TIMEOUT_S, queue_limit=SEND_QUEUE)
    stack.callback(sender.close)
    replies = _until_reached(partial(link.replies, inbox, settings.replica, tier.sink, BROKER_WAIT_S), stopping)
    stack.callback(replies.close)
    return Front(sender, replies, link.queue(queue))


def _open_back(
    settings: ServeSettings,
    loaded: Loaded,
    open_link: OpenLink,
    tier: Tier,
    stack: ExitStack,
    stopping: threading.Event,
) -> Back:
    cascade = _cascade(settings, loaded)
    queue, dead = topics.requests(cascade, tier.name), topics.dead_letters(cascade, tier.name)
    link = open_link(settings.back, "back")
    stack.callback(link.close)
    largest = {name: size for name, size in topics.all_topics(loaded.spec, cascade).items() if name in (queue, dead)}
    sizes = _until_reached(partial(link.prepare, [queue, dead], BROKER_WAIT_S, largest), stopping)
    _until_reached(partial(link.check_may_write, dead, BROKER_WAIT_S), stopping)
    _check_room(f"an input of stage {tier.name}", loaded.model.stages[0].input.size_bytes, queue, sizes[queue])
    sender = link.sender(
        tier.sink, message_timeout_s=BACK_MESSAGE_TIMEOUT_S, queue_limit=SEND_QUEUE, to_unprepared=True
    )
    stack.callback(sender.close)
    source = link.requests(queue, topics.group(cascade, tier.name), tier.sink)
    stack.callback(source.close)
    return Back(source, sender, link.queue(dead))


def _cascade(settings: ServeSettings, loaded: Loaded) -> str:
    return settings.cascade or loaded.spec.name


def _check_room(what: str, size_bytes: int, queue: str, limit_bytes: int) -> None:
    if size_bytes + HEADER_ROOM_BYTES > limit_bytes:
        raise TransportError(
            f"{what} is {size_bytes} bytes, and topic {queue} takes at most {limit_bytes} a message with headers; "
            "raise its max.message.bytes, or train with a smaller --uplink-dtype or another cut"
        )


def _until_reached(call: Callable[[], T], stopping: threading.Event) -> T:
    """Try again until the brokers answer; raises `StoppedError` once the tier is told to stop."""
    while not stopping.is_set():
        try:
            return call()
        except BrokerUnavailableError as error:
            log.warning("%s; trying again", error)
            stopping.wait(1.0)
    raise StoppedError("stopped")


# --- start and stop --------------------------------------------------------------------------------------------------


@contextmanager
def _stop_on_signal(tier: Tier, stopping: threading.Event) -> Iterator[None]:
    """Turn SIGTERM and SIGINT into an orderly stop while this lasts."""

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()
        tier.stop()

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers; a tier in a thread is stopped by its owner
        return
    old = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _announce(
    back: Back, front: Front | None, ready_file: Path | None, tier: str, stopping: threading.Event, stack: ExitStack
) -> None:
    """Say that the tier is ready once it is, from a thread of its own: joining a group can take seconds."""

    def wait() -> None:
        while not stopping.is_set() and not back.source.wait_ready(0.5):
            pass
        if stopping.is_set():
            return
        for sender in (back.sender, front.sender if front else back.sender):
            sender.wait_ready(SENDER_WAIT_S)  # a front that is away meanwhile does not make this tier less ready
        if stopping.is_set():
            return
        log.info("tier %s ready", tier)
        if ready_file is not None:
            partial_file = ready_file.with_name(ready_file.name + ".partial")
            partial_file.write_text(f"{os.getpid()}\n", encoding="utf-8")
            partial_file.replace(ready_file)

    thread = threading.Thread(target=wait, name="ready", daemon=True)
    thread.start()
    if ready_file is not None:
        stack.callback(ready_file.unlink, missing_ok=True)
    stack.callback(thread.join)
    stack.callback(stopping.set)  # before the join: brokers that refuse the consumer end the tier, and no signal comes
