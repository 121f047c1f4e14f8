"""What goes into the tier machine and what comes out of it: events and effects, as plain records.

Tokens, addresses and correlations are opaque: the machine only hands them back.
Times are seconds on the caller's monotonic clock. Nobody changes a record; they are not frozen, as making a
frozen one takes three times as long, and a message makes ten.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from branchy.core.cascade import Array, Uplink
from branchy.core.messages import Answer, EncodedSample, Request

Token = Hashable
Address = Hashable


# --- events ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Came:
    """A request came that could be read; `age_s` is how long it waited in the queue."""

    token: Token
    request: Request
    reply_to: Address
    correlation: bytes | None
    age_s: float = 0.0


@dataclass(slots=True)
class Malformed:
    """Something came that is no request; `request` is its id where one could be read, `body_bytes` the body's size."""

    token: Token
    request: str | None
    reply_to: Address | None
    correlation: bytes | None
    code: str
    text: str
    body_bytes: int = 0


@dataclass(slots=True)
class Computed:
    """A batch was run.

    Attributes:
        work: the number of the `Submit`.
        outputs: by tensor name, each (n, *shape), in the order submitted; empty when all failed.
        started: when the batch began.
        finished: when it was done.
        failures: by position in the batch, what was wrong with that sample (it has no outputs: the
            others are in `outputs` without a gap).
    """

    work: int
    outputs: Mapping[str, Array]
    started: float
    finished: float
    failures: Mapping[int, str]


@dataclass(slots=True)
class ForwardEncoded:
    """A forward was encoded: how many bytes (headers and body) go up."""

    correlation: bytes
    bytes_up: int


@dataclass(slots=True)
class FrontAnswered:
    """An answer came from the front; None when what came could not be read."""

    correlation: bytes
    answer: Answer | None


@dataclass(slots=True)
class ForwardFailed:
    """A forward did not reach the front's brokers."""

    correlation: bytes
    text: str


@dataclass(slots=True)
class Acknowledged:
    """The broker has the answer or dead letter of that token."""

    token: Token


@dataclass(slots=True)
class SendFailed:
    """The broker has not the answer or dead letter of that token.

    `permanent` when sending the same again at once cannot help; `too_large` when a smaller one might be taken.
    """

    token: Token
    permanent: bool
    text: str
    too_large: bool = False


@dataclass(slots=True)
class TakenAway:
    """These tokens go to another replica; with `lost` they are gone already."""

    tokens: frozenset[Token]
    lost: bool


@dataclass(slots=True)
class BackFull:
    """The back sender's queue is full, or has room again."""

    full: bool


@dataclass(slots=True)
class Drain:
    """Stop taking requests and settle what there is (SIGTERM)."""


Event = (
    Came
    | Malformed
    | Computed
    | ForwardEncoded
    | FrontAnswered
    | ForwardFailed
    | Acknowledged
    | SendFailed
    | TakenAway
    | BackFull
    | Drain
)


# --- effects ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Submit:
    """Run one stage on a batch; `Computed` comes back with the same number."""

    work: int
    model: str
    stage: str
    inputs: Sequence[Array | EncodedSample]


@dataclass(slots=True)
class Forward:
    """Send a request to the front under a fresh correlation; its float tensors travel as `uplink` says."""

    correlation: bytes
    request: Request
    uplink: Uplink


@dataclass(slots=True)
class SendAnswer:
    """Answer a request. With a token, terminal: its delivery report is reported back; None is a courtesy."""

    token: Token | None
    reply_to: Address
    correlation: bytes | None
    answer: Answer
    traceparent: str | None


@dataclass(slots=True)
class DeadLetter:
    """Send the delivery as it came to the dead letters, with why. Terminal; its report is reported back.

    `body_bytes`: the size of the body, which is kept until then. `bare`: only where it lies and why, as it is
    too large for the dead letters.
    """

    token: Token
    code: str
    text: str
    body_bytes: int = 0
    bare: bool = False


@dataclass(slots=True)
class Forget:
    """This replica is done with the token without an answer. Terminal.

    `superseded`: another token asks for the same and will be answered, so this one may be settled.
    Otherwise it must not be: another replica gets it again.
    """

    token: Token
    superseded: bool


@dataclass(slots=True)
class Settle:
    """The token's answer or dead letter is acknowledged by the broker: it may be committed."""

    token: Token


@dataclass(slots=True)
class Pause:
    """Take no more requests for now."""


@dataclass(slots=True)
class Resume:
    """Take requests again."""


@dataclass(slots=True)
class PurgeFront:
    """Drop the forwards that have not reached a broker: they would only arrive stale."""


Effect = Submit | Forward | SendAnswer | DeadLetter | Forget | Settle | Pause | Resume | PurgeFront
