"""Names of the queues between device and tiers; a tier is called by its first stage's name."""

from __future__ import annotations

import numpy as np

from branchy.core.cascade import CascadeSpec, StageSpec

PREFIX = "branchy."
"""What every topic of branchy begins with; a reply address outside of it is refused."""

NOT_FOR_ANSWERS = (".requests", ".dead")
"""What no reply address ends in: a tier's right to write there must not be whoever's asks for an answer there."""


def requests(cascade: str, tier: str) -> str:
    """Where a tier's requests come from; all its replicas share it."""
    return f"{PREFIX}{cascade}.{tier}.requests"


def answers(cascade: str, requester: str, user: str | None = None) -> str:
    """Where the answers come back that a tier (or `device`) asked its front for.

    Args:
        cascade: name in the topics.
        requester: the tier, or `device`.
        user: whose answers alone; None for the topic that all such requesters share.
    """
    return f"{PREFIX}{cascade}.{requester}.answers{f'.{user}' if user else ''}"


def dead_letters(cascade: str, tier: str) -> str:
    """Where a tier puts what it could not read or run, with why in the headers."""
    return f"{PREFIX}{cascade}.{tier}.dead"


def group(cascade: str, tier: str) -> str:
    """The consumer group that a tier's replicas share its requests in."""
    return f"{PREFIX}{cascade}.{tier}"


def all_topics(spec: CascadeSpec, cascade: str) -> dict[str, int]:
    """Every topic that a cascade may use, however its stages are put into tiers.

    Returns:
        By topic the bytes of the largest body that it must take; 0 where it is small anywhere.
    """
    out = {answers(cascade, "device"): 0}
    before: StageSpec | None = None
    for stage in spec.stages:
        takes_sample = stage.inputs[0].stage is None
        largest_bytes = sample_bytes(stage) if before is None or takes_sample else request_bytes(before)
        out |= {requests(cascade, stage.name): largest_bytes, dead_letters(cascade, stage.name): largest_bytes}
        if stage.successors:
            out[answers(cascade, stage.name)] = 0
        before = stage
    full = spec.full.name
    return out | dict.fromkeys((requests(cascade, full), dead_letters(cascade, full)), sample_bytes(spec.full))


def request_bytes(stage: StageSpec) -> int:
    """Bytes of the tensor that a stage sends up, in the dtype it travels in; 0 for the last stage."""
    if stage.activation is None or stage.uplink is None:
        return 0
    return stage.activation.values * np.dtype(stage.uplink.dtype).itemsize


def sample_bytes(stage: StageSpec) -> int:
    """Bytes of a sample at most: four a value, which is float32 as well as three digits and a comma in JSON."""
    return max(stage.input.size_bytes, 4 * stage.input.values)
