"""Names of the queues between device and tiers; a tier is called by its first stage's name."""

from __future__ import annotations

PREFIX = "branchy."
"""What every topic of branchy begins with; a reply address outside of it is refused."""


def requests(cascade: str, tier: str) -> str:
    """Where a tier's requests come from; all its replicas share it."""
    return f"{PREFIX}{cascade}.{tier}.requests"


def answers(cascade: str, requester: str) -> str:
    """Where the answers come back that a tier (or `device`) asked its front for."""
    return f"{PREFIX}{cascade}.{requester}.answers"


def dead_letters(cascade: str, tier: str) -> str:
    """Where a tier puts what it could not read or run, with why in the headers."""
    return f"{PREFIX}{cascade}.{tier}.dead"
