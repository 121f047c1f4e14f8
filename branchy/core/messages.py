"""What travels between device and tiers: requests, answers, and the hops an answer lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Literal

from branchy.core.cascade import Array
from branchy.core.record import record

Status = Literal["ok", "rejected", "error"]
Reason = Literal[
    "confident",
    "final",
    "timeout",
    "unreachable",
    "rejected",
    "overload",
    "handover",
    "expired",
    "digest",
    "malformed",
    "failed",
]


@record
class EncodedSample:
    """A sample still in an image format; the first tier decodes it (needs `branchy[images]`)."""

    content_type: Literal["image/jpeg", "image/png"]
    data: bytes


@record
class Request:
    """A sample or an activation, asking for an answer within a budget.

    Attributes:
        id: `branchy-request`, the same from device to device.
        model: the bundle's digest.
        stage: the stage to run next.
        budget_ms: what was left of the deadline when sent.
        payload: tensors by name, without batch axis, or an encoded sample.
        traceparent: W3C trace context, passed through.
        body_bytes: size of the body as received, 0 for a request not yet encoded.
    """

    id: str
    model: str
    stage: str
    budget_ms: float
    payload: Mapping[str, Array] | EncodedSample
    traceparent: str | None = None
    body_bytes: int = 0

    def held_bytes(self, tensor: Array | EncodedSample) -> int:
        """Bytes of the body as received, of the tensors that are no views of it (converted ones), and of one more.

        Args:
            tensor: the one more; one of its own counts once.
        """
        held, payload = self.body_bytes, self.payload
        if isinstance(tensor, EncodedSample) or isinstance(payload, EncodedSample):
            return held if isinstance(tensor, EncodedSample) else held + tensor.nbytes
        more = tensor.nbytes
        for each in payload.values():
            if each.flags.owndata:
                held += each.nbytes
            if each is tensor:
                more = 0
        return held + more

    def same_as(self, other: Request) -> bool:
        """Whether both are one request: id, model, stage and payload, this to the last byte."""
        if (self.id, self.model, self.stage) != (other.id, other.model, other.stage):
            return False
        mine, theirs = self.payload, other.payload
        if isinstance(mine, EncodedSample) or isinstance(theirs, EncodedSample):
            return mine == theirs
        return mine.keys() == theirs.keys() and all(_same_bytes(mine[name], theirs[name]) for name in mine)


def _same_bytes(one: Array, other: Array) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


@record
class Hop:
    """What one tier did for a request; times in milliseconds.

    Attributes:
        tier: the tier's name.
        exit: the stage whose exit gave `index`; None where the tier predicted nothing.
        index: the class this tier's own exit predicts.
        confidence: of that prediction, calibrated.
        queue_ms: receipt to the start of its computing.
        compute_ms: inference (of the batch it was in).
        total_ms: receipt to answer.
        bytes_up: headers and body sent up at this tier's cut, 0 when nothing was.
    """

    tier: str
    exit: str | None
    index: int | None
    confidence: float | None
    queue_ms: float
    compute_ms: float
    total_ms: float
    bytes_up: int = 0


@record
class Answer:
    """What comes back for a request.

    Attributes:
        request: the id of the request.
        status: `ok` has a label; `rejected` (refused) and `error` (malformed or failed) have none.
        tier: the tier that answered; `exit` the stage whose exit did.
        reason: why that tier answered.
        probabilities: softmax(logits / T) of that exit.
        hops: the tiers passed, the nearest the device first.
        detail: for a person, where there is more to say.
        certified: whether it is under the bundle's certificate: every tier that it passed ran as the
            certificate says, and it comes from an exit that was sure, or the last.
    """

    request: str
    status: Status
    reason: Reason
    tier: str
    model: str
    label: str | None = None
    index: int | None = None
    confidence: float | None = None
    probabilities: tuple[float, ...] = ()
    exit: str | None = None
    hops: tuple[Hop, ...] = field(default=())
    detail: str | None = None
    certified: bool = False

    def behind(self, hop: Hop, *, certified: bool = False) -> Answer:
        """This answer as the next tier back passes it on: with its own hop put first.

        Args:
            hop: what that tier did.
            certified: whether that tier runs as the bundle's certificate says; one that does not takes
                an answer out of it.
        """
        return replace(self, hops=(hop, *self.hops), certified=self.certified and certified)


def is_certified(reason: Reason, *, certified_tier: bool) -> bool:
    """Whether a tier's own answer is under the certificate: all others are not what was certified."""
    return certified_tier and reason in ("confident", "final")
