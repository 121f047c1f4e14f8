"""Rights as Kafka's ACLs (KIP-11, prefixes: KIP-290)."""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from branchy.core.access import Rule

ANY_HOST = "*"


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
