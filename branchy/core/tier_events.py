"""What goes into the tier machine and what comes out of it: events and effects, as plain records.

Tokens, addresses and correlations are opaque: the machine only hands them back.
Times are seconds on the caller's monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

from branchy.core.cascade import Array, Uplink
from branchy.core.messages import Answer, EncodedSample, Request
from branchy.core.record import record

Token = Hashable
Address = Hashable


# --- events ----------------------------------------------------------------------------------------------------------


@record
class Came:
    """A request came that could be read; `age_s` is how long it waited in the queue."""

    token: Token
    request: Request
    reply_to: Address
    correlation: bytes | None
    age_s: float = 0.0


@record
class Malformed:
    """Something came that is no request; `request` is its id where one could be read, `body_bytes` the body's size."""

    token: Token
    request: str | None
    reply_to: Address | None
    correlation: bytes | None
    code: str
    text: str
    body_bytes: int = 0


@record
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


@record
class ForwardEncoded:
    """A forward was encoded: how many bytes (headers and body) go up."""

    correlation: bytes
    bytes_up: int


@record
class FrontAnswered:
    """An answer came from the front; None when what came could not be read."""

    correlation: bytes
    answer: Answer | None


@record
class ForwardFailed:
    """A forward did not reach the front's brokers."""

    correlation: bytes
    text: str


@record
class Acknowledged:
    """The broker has the answer or dead letter of that token."""

    token: Token


@record
class SendFailed:
    """The broker has not the answer or dead letter of that token.

    `permanent` when sending the same again at once cannot help; `too_large` when a smaller one might be taken.
    """

    token: Token
    permanent: bool
    text: str
    too_large: bool = False


@record
class TakenAway:
    """These tokens go to another replica; with `lost` they are gone already."""

    tokens: frozenset[Token]
    lost: bool


@record
class BackFull:
    """The back sender's queue is full, or has room again."""

    full: bool


@record
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


@record
class Submit:
    """Run one stage on a batch; `Computed` comes back with the same number."""

    work: int
    model: str
    stage: str
    inputs: Sequence[Array | EncodedSample]


@record
class Forward:
    """Send a request to the front under a fresh correlation; its float tensors travel as `uplink` says."""

    correlation: bytes
    request: Request
    uplink: Uplink


@record
class SendAnswer:
    """Answer a request. With a token, terminal: its delivery report is reported back; None is a courtesy.

    `wanted_until`: when nobody can wait for it any more, on the tier's clock.
    """

    token: Token | None
    reply_to: Address
    correlation: bytes | None
    answer: Answer
    traceparent: str | None
    wanted_until: float = math.inf


@record
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


@record
class Forget:
    """This replica is done with the token without an answer. Terminal.

    `superseded`: another token asks for the same and will be answered, so this one may be settled.
    Otherwise it must not be: another replica gets it again.
    """

    token: Token
    superseded: bool


@record
class Settle:
    """The token's answer or dead letter is acknowledged by the broker: it may be committed."""

    token: Token


@record
class Pause:
    """Take no more requests for now."""


@record
class Resume:
    """Take requests again."""


@record
class PurgeFront:
    """Drop the forwards that have not reached a broker: they would only arrive stale."""


Effect = Submit | Forward | SendAnswer | DeadLetter | Forget | Settle | Pause | Resume | PurgeFront
