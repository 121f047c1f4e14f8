"""`branchy topics create`: a cascade's topics and its users' rights, by an operator before its tiers run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from branchy.config import DeviceSettings
from branchy.core import access, topics
from branchy.core.access import Rule
from branchy.errors import UsageError
from branchy.store.bundle import Bundle
from branchy.transport.kafka import KafkaLink

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class TopicsReport:
    """Which topics were made, which were there already and fit, and the rights that were given."""

    created: tuple[str, ...]
    fitting: tuple[str, ...]
    granted: tuple[Rule, ...] = ()


def create_topics(
    settings: DeviceSettings,
    *,
    partitions: int,
    replication: int | None,
    devices: Sequence[str] = (),
    grant: bool = False,
) -> TopicsReport:
    """Make the topics of all tiers that the bundle's stages can make up, with room for its largest tensors.

    Args:
        settings: the bundle, the brokers (`back`), and the name in the topics.
        partitions: of each topic.
        replication: copies of each; None takes the brokers' default.
        devices: users that get a reply topic of their own.
        grant: give each tier's user, named as the tier, `device` and `devices` the rights that they need.

    Raises:
        UsageError: a device's name cannot be in a topic's.
        BundleError: the bundle cannot be loaded.
        TransportError: no broker answers, a topic cannot be made, one that is there does not fit, or the brokers
            take no rights.
    """
    spec = Bundle.load(settings.bundle).spec
    cascade = settings.cascade or spec.name
    for device in devices:
        if f".{device}" in topics.NOT_FOR_ANSWERS:
            raise UsageError(
                f"device {device!r}: expected another name, as its topic would not look like one for answers"
            )
        if not NAME.fullmatch(device):
            raise UsageError(f"device {device!r:.80}: expected up to 63 letters, digits, dashes and underscores")
    private = [topics.answers(cascade, access.DEVICE, device) for device in devices]
    largest = topics.all_topics(spec, cascade) | dict.fromkeys(private, 0)
    rules = tuple(access.rules(spec, cascade, devices)) if grant else ()
    with closing(KafkaLink(settings.back, "back")) as link:
        created = link.create_topics(
            largest, partitions=partitions, replication=replication, timeout_s=settings.connect_timeout_s
        )
        if rules:
            link.allow(rules, settings.connect_timeout_s)
    return TopicsReport(tuple(created), tuple(name for name in largest if name not in created), rules)
