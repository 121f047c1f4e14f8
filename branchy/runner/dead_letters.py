"""`branchy dlq`: look at what a tier could not read or run, and send it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from queue import Empty, SimpleQueue
from typing import Any

from branchy.config import DeviceSettings
from branchy.core import topics, wire
from branchy.errors import BrokerUnavailableError, RefusedError, TransportError, UsageError
from branchy.reports.text import listed, text_table
from branchy.store.bundle import Bundle
from branchy.transport.base import Delivery, Link, Message, Sent, TransportEvent
from branchy.transport.kafka import KafkaLink

SEND_QUEUE = 1_000
MESSAGE_TIMEOUT_S = 10.0
ERROR_HEADERS = frozenset({wire.ERROR_CODE, wire.ERROR_TEXT, wire.ERROR_TIER})


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that a tier could not read or run.

    Attributes:
        age_s: how long it has been there.
        code: the stable word for what is wrong with it; `unreadable` where even that cannot be read.
        reason: a line for a person.
        request: the id it carries, None where it has none.
        size_bytes: its headers and body as they came, without those that say why it is there.
        answerable: whether it has a reply address that is allowed and there, without which no tier takes it.
    """

    age_s: float
    code: str
    reason: str
    request: str | None
    size_bytes: int
    answerable: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """The dead letters of one tier: how many there are of each code, and the newest, the oldest of those first."""

    topic: str
    codes: Counter[str]
    newest: tuple[DeadLetter, ...]


@dataclass(frozen=True, slots=True)
class Redriven:
    """How many were sent again to which queue, and how many were not: no tier would take them.

    Those have no reply address, or one that is still not allowed or not there.
    """

    queue: str
    sent: int
    unanswerable: int


@dataclass(frozen=True, slots=True)
class Choice:
    """Which dead letters are meant.

    Attributes:
        codes: any of these codes; empty for whatever code.
        requests: any of these request ids; empty for whatever id.
        all: every one of them.
    """

    codes: Collection[str] = ()
    requests: Collection[str] = ()
    all: bool = False

    def __post_init__(self) -> None:
        """Hold it against itself.

        Raises:
            UsageError: it names nothing, or some and all.
        """
        if bool(self.codes or self.requests) == self.all:
            found = "both" if self.all else "neither"
            raise UsageError(f"expected some of --code and --id, or --all, got {found}")

    def takes(self, letter: DeadLetter) -> bool:
        """Whether this one is meant."""
        return (not self.codes or letter.code in self.codes) and (not self.requests or letter.request in self.requests)


def show(settings: DeviceSettings, *, limit: int, link: Link | None = None) -> Listing:
    """Read a tier's dead letters; they stay as they are.

    Args:
        settings: bundle, brokers, tier, and the name in the topics.
        limit: how many of the newest to list.
        link: instead of Kafka.

    Raises:
        UsageError: the tier is not in the bundle.
        TransportError: no broker answers, or the tier has no topic of dead letters.
    """
    newest: list[DeadLetter] = []
    codes: Counter[str] = Counter()
    with _open(settings, link) as tier:
        for delivery in tier.browse():
            letter = describe(delivery)
            codes[letter.code] += 1
            newest.append(letter)
            if len(newest) == 2 * limit:
                newest = _newest(newest, limit)
        return Listing(tier.dead, codes, tuple(reversed(_newest(newest, limit))))


def _newest(letters: list[DeadLetter], limit: int) -> list[DeadLetter]:
    return sorted(letters, key=lambda letter: letter.age_s)[:limit]


def redrive(settings: DeviceSettings, choice: Choice, *, link: Link | None = None) -> Redriven:
    """Send chosen dead letters again to their tier, as they first came; they stay in the dead letters, too.

    The deadline starts anew. Those that die again lie there a second time, but not within this call:
    it takes what was there when it began.

    Args:
        settings: bundle, brokers, tier, and the name in the topics.
        choice: which.
        link: instead of Kafka.

    Raises:
        UsageError: the tier is not in the bundle.
        TransportError: no broker answers, the tier has no topic of dead letters, or some were not sent;
            the message says how many.
    """
    with _open(settings, link) as tier:
        letters = tier.browse()
        tier.link.prepare([tier.queue], tier.timeout_s, tier.largest)
        unanswerable = 0
        with closing(_Sending(tier)) as sending:
            try:
                for delivery in letters:
                    if choice.takes(describe(delivery)):
                        if delivery.reply_to is None:
                            unanswerable += 1
                        else:
                            sending.send(delivery)
            except TransportError as error:  # what is queued is on its way: it is seen through, and counted
                raise type(error)(f"{error}; {sending.finish():,} were sent again before that") from None
            return Redriven(tier.queue, sending.finish(), unanswerable)


def describe(delivery: Delivery) -> DeadLetter:
    """What a message from a topic of dead letters says of itself."""
    message = delivery.message
    why = dict(message.headers)  # of repeated names the last counts: a tier puts its own behind
    code, reason = why.get(wire.ERROR_CODE), why.get(wire.ERROR_TEXT, b"")
    if code is None:
        code, reason = b"unreadable", (delivery.fault or "not put there by a tier of branchy").encode()
    return DeadLetter(
        delivery.age_s,
        code.decode("utf-8", "replace"),
        reason.decode("utf-8", "replace"),
        wire.request_id(message.headers),
        original(message).size_bytes,
        delivery.reply_to is not None,
    )


def original(message: Message) -> Message:
    """A dead letter as it first came."""
    return Message([(name, value) for name, value in message.headers if name not in ERROR_HEADERS], message.body)


def as_data(letters: Sequence[DeadLetter]) -> list[dict[str, Any]]:
    """Dead letters as JSON takes them."""
    return [asdict(letter) for letter in letters]


def text(listing: Listing) -> str:
    """A listing for a terminal; what came from outside shows no control characters."""
    rows = [
        (_age(each.age_s), f"{each.size_bytes:,} B", *map(_printable, (each.code, each.request or "-", each.reason)))
        for each in listing.newest
    ]
    total = listing.codes.total()
    by_count = sorted(listing.codes.items(), key=lambda item: (-item[1], item[0]))
    counts = _printable(listed([f"{code} {n:,}" for code, n in by_count]))
    heading = f"{listing.topic}: {total:,} dead letter{'' if total == 1 else 's'}{f' ({counts})' if total else ''}"
    if len(rows) < total:
        heading += f"; the newest {len(rows):,}:"
    return f"{heading}\n\n{text_table(('age', 'size', 'code', 'request', 'reason'), rows, left=5)}" if rows else heading


def outcome(redriven: Redriven) -> str:
    """What a redrive did, for a terminal."""
    lines = [f"sent {redriven.sent:,} again to {redriven.queue}"]
    if redriven.sent:
        lines.append(
            "their answers go where they were first asked for: the requester may be gone, and then nobody reads them"
        )
    if redriven.unanswerable:
        why = "no reply address, or one that is not allowed or not there"
        lines.append(f"left {redriven.unanswerable:,} with {why}: no tier takes those")
    return "\n".join(lines)


def _age(age_s: float) -> str:
    for unit, seconds in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if age_s >= 2 * seconds:
            return f"{age_s / seconds:.0f} {unit}"
    return f"{age_s:.0f} s"


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


@dataclass(frozen=True, slots=True)
class _TierTopics:
    """A tier's queue and dead letters on an open link."""

    link: Link
    queue: str
    dead: str
    largest: dict[str, int]
    timeout_s: float

    def browse(self) -> Iterator[Delivery]:
        try:
            return self.link.browse(self.dead, self.timeout_s)
        except BrokerUnavailableError:
            raise
        except RefusedError as error:
            raise RefusedError(f"the dead letters cannot be read: {error}") from None
        except TransportError as error:
            raise TransportError(f"the dead letters cannot be read: {error}; check --cascade and --tier") from None


@contextmanager
def _open(settings: DeviceSettings, link: Link | None) -> Iterator[_TierTopics]:
    spec = Bundle.load(settings.bundle).spec
    cascade = settings.cascade or spec.name
    tier = spec.stage(settings.tier or spec.stages[0].name).name
    queue = topics.requests(cascade, tier)
    largest = {queue: topics.all_topics(spec, cascade)[queue]}
    with ExitStack() as stack:
        if link is None:
            link = stack.enter_context(closing(KafkaLink(settings.back, "back")))
        yield _TierTopics(link, queue, topics.dead_letters(cascade, tier), largest, settings.connect_timeout_s)


class _Sending:
    """Sends messages to a tier's queue and sees each one's fate."""

    def __init__(self, tier: _TierTopics) -> None:
        self._to = tier.link.queue(tier.queue)
        self._events: SimpleQueue[TransportEvent] = SimpleQueue()
        self._sender = tier.link.sender(self._take, message_timeout_s=MESSAGE_TIMEOUT_S, queue_limit=SEND_QUEUE)
        self._queued = self._reported = 0
        self._errors: list[str] = []

    def _take(self, *events: TransportEvent) -> None:
        for event in events:
            self._events.put(event)

    def send(self, delivery: Delivery) -> None:
        """Send one again as it first came, after as many reports as its room in the queue takes."""
        message = original(delivery.message)
        while not self._sender.send(
            self._to, message, self._queued, correlation=delivery.correlation, reply_to=delivery.reply_to
        ):
            self._take_report()
        self._queued += 1

    def finish(self) -> int:
        """Wait until each is acknowledged; returns how many there are."""
        while self._reported < self._queued:
            self._take_report()
        if self._errors:
            failed = f"{len(self._errors)} of {self._queued} dead letters were not sent again: {self._errors[0]}"
            raise TransportError(f"{failed}; they still lie where they were")
        return self._queued

    def close(self) -> None:
        """Free the sender."""
        self._sender.close()

    def _take_report(self) -> None:
        try:
            event = self._events.get(timeout=2 * MESSAGE_TIMEOUT_S)
        except Empty:
            raise BrokerUnavailableError(
                f"the brokers acknowledged {self._reported} of {self._queued} dead letters sent again, then no more"
            ) from None
        if isinstance(event, Sent):
            self._reported += 1
            if event.error is not None:
                self._errors.append(event.error.text)
