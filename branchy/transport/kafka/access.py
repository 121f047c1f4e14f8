"""Rights as Kafka's ACLs (KIP-11, prefixes: KIP-290)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from branchy.core.access import Rule
from branchy.errors import TransportError

ANY_HOST = "*"
LOOK_AGAIN_S = 0.1
ALL = AclBindingFilter(
    ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
)


def create(admin: Any, wanted: Sequence[AclBinding], deadline_s: float) -> None:
    """Create them, and wait until the brokers go by them: those that answer take them from the controller's log.

    Args:
        admin: the client.
        wanted: the rights.
        deadline_s: until when to wait, by the monotonic clock.

    Raises:
        TransportError: the brokers did not take them over in time.
        KafkaException: they refuse them.
    """
    for future in admin.create_acls(list(wanted), request_timeout=max(0.1, deadline_s - time.monotonic())).values():
        future.result()
    while not set(wanted) <= set(admin.describe_acls(ALL, request_timeout=10.0).result()):
        if time.monotonic() > deadline_s:
            raise TransportError("the brokers took the rights, but do not go by them yet; try again")
        time.sleep(LOOK_AGAIN_S)


def bindings(rules: Sequence[Rule]) -> list[AclBinding]:
    """What to create for these rights, each once."""
    found = {
        AclBinding(
            ResourceType[rule.kind.upper()],
            rule.name,
            ResourcePatternType.PREFIXED if rule.prefix else ResourcePatternType.LITERAL,
            f"User:{rule.user}",
            ANY_HOST,
            AclOperation[operation],
            AclPermissionType.ALLOW,
        ): None
        for rule in rules
        for operation in rule.operations
    }
    return list(found)
