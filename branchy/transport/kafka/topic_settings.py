"""What a topic of branchy is set to, and how one that is there differs from that."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from branchy.core.topics import NOT_FOR_ANSWERS

ROOM_BYTES = 64 * 1024
"""For headers, and for a batch's own around its messages."""

DEFAULT_LIMIT_BYTES = 1_048_588
"""Kafka's own `max.message.bytes`: less is never asked for."""

SEGMENT_BYTES = 64 * 1024 * 1024
MINUTE_MS, DAY_MS = 60_000, 86_400_000

RETENTION_MS = 60 * MINUTE_MS
"""Of requests and answers: above the longest outage of all replicas of a tier that loses nothing."""

DEAD_RETENTION_MS = 7 * DAY_MS
"""Of dead letters: somebody has to find the time to look at them."""

SAFE_COPIES = 3
"""From so many on a message counts as sent once all but one have it, so that one may be lost, or away."""

_FITS: dict[str, tuple[str, Callable[[str, str], bool]]] = {
    "max.message.bytes": ("at least ", lambda have, value: int(have) >= int(value)),
    "retention.ms": ("at least ", lambda have, value: int(have) == -1 or int(have) >= int(value)),
    "min.insync.replicas": ("at least ", lambda have, value: int(have) >= int(value)),
    "segment.ms": ("at most ", lambda have, value: int(have) <= int(value)),
    "segment.bytes": ("at most ", lambda have, value: int(have) <= int(value)),
    "segment.jitter.ms": ("any, such as ", lambda have, value: True),
}
"""Settings that need not be the same, only enough."""


def settings_for(name: str, largest_bytes: int, copies: int = 0) -> dict[str, str]:
    """A topic's settings by its kind, which is the last word of its name.

    Args:
        name: `branchy.<cascade>.<tier>.requests`, `.answers` or `.dead`.
        largest_bytes: of the largest body that it must take.
        copies: of each message, 0 where that is not known.
    """
    dead = name.endswith(".dead")
    limit_bytes = max(DEFAULT_LIMIT_BYTES, 2 * (largest_bytes + ROOM_BYTES))  # a batch is more than its one message
    if dead:
        limit_bytes += ROOM_BYTES  # any message that its requests topic takes, and why it is there
    settings = {
        "cleanup.policy": "delete",
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(limit_bytes),
        "retention.ms": str(DEAD_RETENTION_MS if dead else RETENTION_MS),
        # Retention never touches the segment that is written to, so it ends soon even where little comes.
        "segment.ms": str(DAY_MS if dead else MINUTE_MS),
        "segment.bytes": str(max(SEGMENT_BYTES, limit_bytes)),
    }
    if not dead:
        # All partitions are made at once, and would end a segment at once each minute: 15 on each of three nodes held
        # up answers by 0.2 s.
        settings["segment.jitter.ms"] = str(MINUTE_MS // 2)
        # Others write to these: uncompressed, the broker opens every batch and refuses a bomb.
        settings["compression.type"] = "uncompressed"
    if copies >= SAFE_COPIES:
        settings["min.insync.replicas"] = str(SAFE_COPIES - 1)
    return settings


def differences(name: str, largest_bytes: int, found: Mapping[str, str], copies: int = 0) -> list[str]:
    """How a topic that is there does not do what branchy needs; empty when it fits.

    Args:
        name: the topic's.
        largest_bytes: of the largest body that it must take.
        found: its settings as the brokers tell them.
        copies: of each message, that it has.
    """
    wanted = settings_for(name, largest_bytes, copies)
    if name.endswith(NOT_FOR_ANSWERS):
        # Single messages have to go through; who sends there asks first what it takes, and its batches adapt. Who
        # answers does not ask.
        wanted["max.message.bytes"] = str(largest_bytes + (2 if name.endswith(".dead") else 1) * ROOM_BYTES)
    out = []
    for key, value in wanted.items():
        have = found.get(key)
        word, fits = _FITS.get(key, ("", str.__eq__))
        if have is None or not fits(have, value):
            out.append(f"{key} is {have or 'not told'}, expected {word}{value}")
    return out
