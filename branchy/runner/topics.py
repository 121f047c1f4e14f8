"""`branchy topics create`: a cascade's topics, made by an operator before its tiers run."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from branchy.config import DeviceSettings
from branchy.core import topics
from branchy.store.bundle import Bundle
from branchy.transport.kafka import KafkaLink


@dataclass(frozen=True, slots=True)
class TopicsReport:
    """Which topics were made, and which were there already and fit."""

    created: tuple[str, ...]
    fitting: tuple[str, ...]


def create_topics(settings: DeviceSettings, *, partitions: int, replication: int | None) -> TopicsReport:
    """Make the topics of all tiers that the bundle's stages can make up, with room for its largest tensors.

    Args:
        settings: the bundle, the brokers (`back`), and the name in the topics.
        partitions: of each topic.
        replication: copies of each; None takes the brokers' default.

    Raises:
        BundleError: the bundle cannot be loaded.
        TransportError: no broker answers, a topic cannot be made, or one that is there does not fit.
    """
    spec = Bundle.load(settings.bundle).spec
    largest = topics.all_topics(spec, settings.cascade or spec.name)
    with closing(KafkaLink(settings.back, "back")) as link:
        created = link.create_topics(
            largest, partitions=partitions, replication=replication, timeout_s=settings.connect_timeout_s
        )
    return TopicsReport(tuple(created), tuple(name for name in largest if name not in created))
