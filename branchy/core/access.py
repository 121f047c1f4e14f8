"""Who may do what: the least that a device and each tier of a cascade need of the brokers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from branchy.core import topics
from branchy.core.cascade import FULL, CascadeSpec

DEVICE = "device"
"""The user of devices that share a reply topic."""

Operation = Literal["READ", "WRITE", "DESCRIBE_CONFIGS"]


class Rule(NamedTuple):
    """One user's right; all else is refused. To read or write implies to describe.

    Attributes:
        user: who may.
        operations: what, in Kafka's words.
        kind: of the resource.
        name: its name, or with
        prefix: what it begins with.
    """

    user: str
    operations: tuple[Operation, ...]
    kind: Literal["topic", "group"]
    name: str
    prefix: bool = False


def rules(spec: CascadeSpec, cascade: str, devices: Sequence[str] = ()) -> list[Rule]:
    """The rights of a cascade's users: `device`, and each tier's by its name.

    A tier may send to every tier above it: which stages it takes together is settled when it is served.
    Answers go to addresses that come with the requests: to any reply topic of the tiers below, shared or a user's own.

    Args:
        spec: its stages.
        cascade: name in the topics.
        devices: users that have a reply topic of their own, which no other may read.
    """
    names = [stage.name for stage in spec.stages]
    out: list[Rule] = []
    for number, tier in enumerate(names):
        asks = [topics.requests(cascade, above) for above in names[number + 1 :]]
        out += _works(cascade, tier, answers=names[:number] or [DEVICE])
        out += [_topic(tier, "WRITE", name) for name in asks]
        if asks:
            out.append(_topic(tier, "READ", topics.answers(cascade, tier)))
    out += _works(cascade, FULL, answers=[DEVICE])
    for device in dict.fromkeys((DEVICE, *devices)):
        own = topics.answers(cascade, DEVICE, None if device == DEVICE else device)
        out += [_topic(device, "WRITE", topics.requests(cascade, entrance)) for entrance in (names[0], FULL)]
        out.append(_topic(device, "READ", own))
    return out


def _works(cascade: str, tier: str, answers: Sequence[str]) -> list[Rule]:
    """Take requests, answer them, put aside what cannot be read."""
    return [
        _topic(tier, "READ", topics.requests(cascade, tier)),
        Rule(tier, ("READ",), "group", topics.group(cascade, tier)),
        _topic(tier, "WRITE", topics.dead_letters(cascade, tier)),
        *(Rule(tier, ("WRITE",), "topic", topics.answers(cascade, below), prefix=True) for below in answers),
    ]


def _topic(user: str, operation: Operation, name: str) -> Rule:
    """With a look at its settings: how large a message it takes."""
    return Rule(user, (operation, "DESCRIBE_CONFIGS"), "topic", name)
