"""The contract of a transport.

A `Link` is one side's brokers (the back or the front of a tier). It opens a request
source, a reply inbox and senders. All of them report into one `Sink`, so that a tier
has one queue of events and never polls two consumers in turn. Deliveries are settled
by opaque tokens and replies go to opaque addresses: nothing above this package knows
a topic's partition or an offset.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Protocol

from branchy.core.record import record
from branchy.errors import TransportError

Headers = Sequence[tuple[str, bytes]]
Token = Hashable
Address = Hashable


@record
class Capabilities:
    """What a transport can do; the contract suite skips, by name, what it cannot.

    Attributes:
        append_time: deliveries have a true age.
        admin: topics can be created with settings, and their limits read.
        redelivers: what a killed consumer had not settled comes again.
        replicas: several consumers of one queue share its messages.
    """

    append_time: bool
    admin: bool
    redelivers: bool
    replicas: bool


@record
class Message:
    """Headers (in order, names may repeat) and body as they travel."""

    headers: Headers
    body: bytes

    @property
    def size_bytes(self) -> int:
        """Bytes of headers and body, before any compression of the link."""
        return len(self.body) + sum(len(k) + len(v) for k, v in self.headers)


@record
class Delivery:
    """A request as it arrived.

    Attributes:
        token: settles it; opaque, and as text the message's place for a person who looks for it.
        age_s: how long it has been in the queue (0 where the transport has no append time).
        reply_to: where its answer goes, None where it asks for none.
        correlation: opaque bytes that pair the answer with this attempt.
        fault: why the transport could not hand on a usable message (a body that cannot be
            decompressed, a reply address that is not allowed); such a delivery goes to the dead letters.
    """

    token: Token
    message: Message
    age_s: float
    reply_to: Address | None
    correlation: bytes | None
    fault: str | None = None


@record
class SendError:
    """Why a send failed; `permanent` when sending the same again cannot help, `too_large` when less might do."""

    text: str
    permanent: bool
    too_large: bool = False


@record
class Arrived:
    """Event: requests came."""

    deliveries: Sequence[Delivery]


@record
class Replied:
    """Event: an answer came to this replica's reply address."""

    correlation: bytes | None
    message: Message


@record
class Sent:
    """Event: the broker acknowledged the send of that tag (error None), or it failed."""

    tag: Hashable
    error: SendError | None


@record
class Revoked:
    """Event: these unsettled tokens now belong to another replica.

    The transport waits for `done` (at most a second) before it gives them up, so that they can
    still be answered; with `lost` they are gone already and nothing can be settled.
    """

    tokens: frozenset[Token]
    done: threading.Event
    lost: bool = False


@record
class LinkState:
    """Event: the brokers of a link became reachable, or went away (`detail` for a person)."""

    link: str
    up: bool
    detail: str = ""


@record
class Failed:
    """Event: a source or an inbox has come to its end: brokers refuse it, or it has a bug. Nothing more comes of it."""

    error: TransportError


TransportEvent = Arrived | Replied | Sent | Revoked | LinkState | Failed


class Sink(Protocol):
    """Takes events, from any thread, and never waits for another; those that came together are given together."""

    def __call__(self, *events: TransportEvent) -> None:
        """Take these, in this order."""


class RequestSource(Protocol):
    """Consumes a queue of requests, shared with the other replicas of its group."""

    def start(self) -> None:
        """Join the group and deliver `Arrived` and `Revoked` events from now on; returns at once."""

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until this member has its share of the queue (it may be none); False on time-out."""

    def settle(self, token: Token) -> None:
        """This delivery is finished; unknown and repeated tokens are ignored. Thread-safe."""

    def pause(self) -> None:
        """Deliver nothing more until `resume`; what was fetched already may still come."""

    def resume(self) -> None:
        """Deliver again."""

    def unsettled(self) -> int:
        """How many deliveries are not settled yet."""

    @property
    def lag(self) -> int | None:
        """Requests in this member's share of the queue that it has not taken yet; None while that is not known."""

    def close(self) -> None:
        """Commit what is settled, leave the group, free everything; may be called twice."""


class ReplyInbox(Protocol):
    """Receives answers sent to one replica's (or device's) own address."""

    @property
    def address(self) -> Address:
        """Put it into `Sender.send(reply_to=...)`; answers sent to it from now on are received."""

    def close(self) -> None:
        """Stop receiving; may be called twice."""


class Sender(Protocol):
    """Sends messages and reports each one's fate as a `Sent` event, exactly once a tag."""

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until a send would go out at once; False on time-out. One may send before that, it waits then."""

    def send(
        self,
        to: Address,
        message: Message,
        tag: Hashable,
        *,
        correlation: bytes | None = None,
        reply_to: Address | None = None,
    ) -> bool:
        """Queue a message; False when it takes none now (backpressure: nothing was queued, no event follows)."""

    def purge(self) -> None:
        """Drop what has not reached a broker; each dropped send is reported as failed."""

    def flush(self, timeout_s: float) -> int:
        """Wait until everything queued is acknowledged; returns how many are not."""

    def close(self) -> None:
        """Free it without waiting; may be called twice."""


class Link(Protocol):
    """One side's brokers."""

    @property
    def capabilities(self) -> Capabilities:
        """What these brokers can do; certain once `prepare` has returned."""

    def queue(self, name: str) -> Address:
        """The address of a queue by its topic name (`branchy.<cascade>.<tier>.requests`)."""

    def prepare(
        self, names: Sequence[str], timeout_s: float, largest: Mapping[str, int] | None = None
    ) -> Mapping[str, int]:
        """See to it that these topics are there; returns the largest message in bytes each takes.

        Args:
            names: the topics.
            timeout_s: how long to wait for the brokers.
            largest: bytes of the largest body that a topic must take; one that is made gets room for it.

        Raises:
            BrokerUnavailableError: no broker answered in time.
            TransportError: a topic is not there and cannot be made.
        """

    def check_may_write(self, name: str, timeout_s: float) -> None:
        """See to it that this user may write to a topic.

        Raises:
            RefusedError: it may not.
            BrokerUnavailableError: no broker answered in time.
        """

    def requests(self, name: str, group: str, sink: Sink) -> RequestSource:
        """A source of requests from a queue."""

    def replies(self, name: str, replica: str, sink: Sink, timeout_s: float) -> ReplyInbox:
        """An inbox for answers; returns only when it would miss none sent from now on.

        Args:
            name: the topic of answers.
            replica: the replica's ordinal ("0", "1", ...) or any name; picks the partition.
            sink: takes the `Replied` events.
            timeout_s: how long to wait for the brokers.

        Raises:
            BrokerUnavailableError: no broker answered in time.
        """

    def browse(self, name: str, timeout_s: float) -> Iterator[Delivery]:
        """What is in a topic at this moment, each partition's oldest first.

        Changes nothing: no group is joined, nothing is settled, and reading again gives the same.

        Args:
            name: the topic.
            timeout_s: how long to wait for the brokers, each time there is nothing to hand on.

        Raises:
            TransportError: the topic is not there, or may not be read.
            BrokerUnavailableError: the brokers did not answer in time, or stopped to on the way.
        """

    def sender(self, sink: Sink, *, message_timeout_s: float, queue_limit: int, to_unprepared: bool = False) -> Sender:
        """A sender.

        Args:
            sink: takes the `Sent` events.
            message_timeout_s: what is not acknowledged within it is reported as failed.
            queue_limit: most messages that may wait.
            to_unprepared: whether it also sends where `prepare` was not asked what is taken, as a reply address
                that came with a request.
        """

    def close(self) -> None:
        """Free what the link itself holds; may be called twice."""
