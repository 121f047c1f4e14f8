"""Seeing to it that topics are there, and what they take."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import ConfigResource, NewTopic, ResourceType

from branchy.errors import BrokerUnavailableError, RefusedError, TransportError
from branchy.transport.kafka.topic_settings import settings_for

logger = logging.getLogger(__name__)

PARTITIONS = 12
ENVELOPE_BYTES = 1_024
"""Kept of a topic's limit for the record's own overhead and the reply headers."""

NOT_ALLOWED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)

NOT_NOW = frozenset(
    {
        KafkaError._TIMED_OUT,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NOT_CONTROLLER,
        KafkaError.BROKER_NOT_AVAILABLE,
    }
)
"""Errors of brokers that are busy, or just electing: trying again helps."""

NO_ANSWER = NOT_NOW | {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN}
"""Errors by which nothing is known of what a broker would have said."""

BROKER_PATIENCE_S = 1.0
"""How long one broker may take to tell its settings, where another can be asked."""

NO_GROUP = KafkaError.GROUP_AUTHORIZATION_FAILED
"""Means nothing to who reads by `assign`, in no group: librdkafka looks for a group's coordinator all the same."""


def touch(admin: Any, names: Sequence[str], deadline_s: float) -> None:
    """Make topics appear on the mock cluster: it creates what a producer's or admin's metadata request names."""
    for name in names:
        while not _is_there(admin.list_topics(name, timeout=_left(deadline_s)), name):
            if time.monotonic() > deadline_s:
                raise TransportError(f"topic {name}: the embedded broker did not make it")
            time.sleep(0.02)


def create_missing(
    admin: Any,
    largest: Mapping[str, int],
    known: Container[str],
    deadline_s: float,
    *,
    partitions: int = PARTITIONS,
    copies: int | None = None,
) -> tuple[list[str], Any]:
    """Create the topics that are not there and wait until they have leaders.

    Args:
        admin: the client.
        largest: by topic the bytes of the largest body that it must take.
        known: the topics that are there.
        deadline_s: until when to wait, by the monotonic clock.
        partitions: of each.
        copies: of each; None takes the brokers' default.

    Returns:
        Those that were created; and metadata that has them all: another broker's may not yet.

    Raises:
        RefusedError: a topic cannot be seen and may not be created.
        BrokerUnavailableError: the brokers did not make it in time.
        TransportError: a topic is not there and cannot be created.
    """
    missing = [name for name in largest if name not in known]
    if not missing:
        return [], admin.list_topics(timeout=_left(deadline_s))
    topics = [
        NewTopic(
            name,
            num_partitions=partitions,
            replication_factor=copies or -1,
            config=settings_for(name, largest[name], copies or 0),
        )
        for name in missing
    ]
    created = []
    for name, future in admin.create_topics(topics, request_timeout=_left(deadline_s)).items():
        try:
            future.result()
            created.append(name)
        except KafkaException as error:
            if error.args[0].code() in NOT_ALLOWED:
                if name in admin.list_topics(timeout=_left(deadline_s)).topics:
                    continue  # it was only without a leader, or this user's rights were not there yet
                raise RefusedError(
                    f"topic {name} is not there, or may not be seen by this user, who may not make it either; an "
                    "operator makes topics with 'branchy topics create' and gives rights on them with --grant"
                ) from None
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                kind = BrokerUnavailableError if error.args[0].code() in NOT_NOW else TransportError
                raise kind(f"topic {name} is not there and cannot be made: {error.args[0].str()}") from None
    metadata = admin.list_topics(timeout=_left(deadline_s))
    while late := [name for name in missing if not _is_there(metadata, name)]:
        if time.monotonic() > deadline_s:
            raise BrokerUnavailableError(f"topic {late[0]} was made, but has no leader yet")
        time.sleep(0.05)
        metadata = admin.list_topics(timeout=_left(deadline_s))
    return created, metadata


def default_copies(admin: Any, brokers: Collection[int], deadline_s: float) -> int | None:
    """Copies of each message in topics that are made without a number; None where the brokers do not tell this user.

    Only one broker is asked at a time, and which is by chance: where one cannot be reached, others can.

    Args:
        admin: the client.
        brokers: their numbers, any of which may be asked.
        deadline_s: until when to wait, by the monotonic clock.

    Raises:
        KafkaException: none answered.
    """
    silent: KafkaException | None = None
    for broker in random.sample(sorted(brokers), len(brokers)):
        resource = ConfigResource(ResourceType.BROKER, str(broker))
        patience_s = min(BROKER_PATIENCE_S, _left(deadline_s))
        try:
            found = admin.describe_configs([resource], request_timeout=patience_s)[resource].result()
        except KafkaException as error:
            if error.args[0].code() not in NO_ANSWER:
                return None
            silent = error
        else:
            value = found.get("default.replication.factor")
            return int(value.value) if value is not None and str(value.value).isdigit() else None
        if time.monotonic() > deadline_s:
            break
    if silent is not None:
        raise silent
    return None


def read_settings(admin: Any, names: Iterable[str], deadline_s: float) -> dict[str, dict[str, str]]:
    """The settings of topics; without those that the brokers do not tell us.

    A broker may not know yet what another made a moment ago: such a topic is asked for again.
    """
    out: dict[str, dict[str, str]] = {}
    asked = list(names)
    while asked:  # confluent-kafka takes no empty list
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in asked]
        asked = []
        for resource, future in admin.describe_configs(resources, request_timeout=_left(deadline_s)).items():
            try:
                out[resource.name] = {key: str(entry.value) for key, entry in future.result().items()}
            except KafkaException as error:
                if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART and time.monotonic() < deadline_s:
                    asked.append(resource.name)
                else:
                    logger.warning("topic %s: its settings cannot be read (%s)", resource.name, error.args[0].str())
        if asked:
            time.sleep(0.05)
    return out


def _is_there(metadata: Any, name: str) -> bool:
    topic = metadata.topics.get(name)
    return (
        topic is not None
        and topic.error is None
        and bool(topic.partitions)
        and all(partition.leader >= 0 for partition in topic.partitions.values())
    )


def _left(deadline_s: float) -> float:
    return max(0.1, deadline_s - time.monotonic())
