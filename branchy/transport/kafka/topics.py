"""Seeing to it that topics are there, and what they take."""

from __future__ import annotations

import logging
import time
from collections.abc import Container, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import ConfigResource, NewTopic, ResourceType

from branchy.errors import TransportError
from branchy.transport.kafka.config import CLIENT_LIMIT_BYTES

logger = logging.getLogger(__name__)

PARTITIONS = 12
ENVELOPE_BYTES = 1_024
"""Kept of a topic's limit for the record's own overhead and the reply headers."""

NOT_ALLOWED = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})

TOPIC = {"message.timestamp.type": "LogAppendTime", "segment.ms": "60000", "segment.bytes": str(64 * 1024 * 1024)}


def touch(admin: Any, names: Sequence[str], deadline_s: float) -> None:
    """Make topics appear on the mock cluster: it creates what a producer's or admin's metadata request names."""
    for name in names:
        while not _is_there(admin.list_topics(name, timeout=_left(deadline_s)), name):
            if time.monotonic() > deadline_s:
                raise TransportError(f"topic {name}: the embedded broker did not make it")
            time.sleep(0.02)


def create_missing(admin: Any, names: Sequence[str], known: Container[str], deadline_s: float) -> None:
    """Create the topics that are not there and wait until they have leaders.

    Raises:
        TransportError: a topic is not there and may not be created, or not in time.
    """
    missing = [name for name in names if name not in known]
    if not missing:
        return
    topics = [
        NewTopic(name, num_partitions=PARTITIONS, replication_factor=-1, config=_config(name)) for name in missing
    ]
    for name, future in admin.create_topics(topics, request_timeout=_left(deadline_s)).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TransportError(f"topic {name} is not there and cannot be made: {error.args[0].str()}") from None
    for name in missing:
        while not _is_there(admin.list_topics(timeout=_left(deadline_s)), name):
            if time.monotonic() > deadline_s:
                raise TransportError(f"topic {name} was made, but has no leader yet; try again")
            time.sleep(0.05)


def limits(admin: Any, names: Sequence[str], deadline_s: float) -> dict[str, int]:
    """The largest batch in bytes that each topic takes; the client's default where we may not ask."""
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    out = dict.fromkeys(names, CLIENT_LIMIT_BYTES)
    for resource, future in admin.describe_configs(resources, request_timeout=_left(deadline_s)).items():
        try:
            out[resource.name] = int(future.result()["max.message.bytes"].value)
        except KafkaException as error:
            logger.warning(
                "topic %s: its size limit cannot be read (%s); taking %d bytes",
                resource.name,
                error.args[0].str(),
                CLIENT_LIMIT_BYTES,
            )
    return out


def _config(name: str) -> dict[str, str]:
    # Devices write to request topics: uncompressed, the broker opens every batch and refuses a bomb.
    return {**TOPIC, "compression.type": "uncompressed"} if name.endswith(".requests") else TOPIC


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
