"""Is this exit sure? Softmax with a temperature and three exit policies.

`max_prob` and `margin` are shares, `entropy` is the criterion of BranchyNet
(Teerapittayanon et al., 2016) in nats.
"""

from __future__ import annotations

import math
from typing import Any, cast, overload

import numpy as np
from numpy.typing import NDArray

from branchy.core.cascade import Array, ExitSettings, PolicyName
from branchy.core.record import record

_NOTHING = -800.0
"""exp of it is 0 in float64."""
FEW_LOGITS = 64
"""Softmax of a batch with so many takes less time in Python than in NumPy."""


@record
class Verdict:
    """What an exit says of one sample: class, calibrated confidence, probabilities, and whether it is sure."""

    index: int
    confidence: float
    probabilities: tuple[float, ...]
    sure: bool


def probabilities(logits: Array, temperature: float = 1.0) -> NDArray[np.float64]:
    """softmax(logits / T) over the last axis, in float64.

    Args:
        logits: (..., classes), any real dtype.
        temperature: T > 0.

    Returns:
        (..., classes), each row summing to 1.
    """
    # A tier with one request in flight finds each of these calls in cold caches: none more than it takes.
    scaled = np.subtract(logits, np.maximum.reduce(logits, axis=-1, keepdims=True), dtype=np.float64)
    if temperature < 1.0:
        np.maximum(scaled, _NOTHING * temperature, out=scaled)  # so that no tiny T makes the division overflow
    if temperature != 1.0:
        scaled /= temperature
    np.exp(scaled, out=scaled)
    scaled /= np.add.reduce(scaled, axis=-1, keepdims=True)
    return cast(NDArray[np.float64], scaled)


def score(probs: NDArray[np.float64], policy: PolicyName) -> NDArray[np.float64]:
    """The number that a policy compares with its threshold.

    Args:
        probs: (..., classes) probabilities.
        policy: `max_prob` (largest), `margin` (largest minus second) or `entropy` (nats).

    Returns:
        (...,) scores.
    """
    if policy == "entropy":
        nats = -np.sum(probs * np.log(np.maximum(probs, np.finfo(np.float64).tiny)), axis=-1)
        # Rounding must not put it above ln classes: at that threshold every sample leaves.
        return np.asarray(np.clip(nats, 0.0, math.log(probs.shape[-1])))
    if policy == "max_prob":
        return np.asarray(np.maximum.reduce(probs, axis=-1))
    top = np.partition(probs, -2, axis=-1)
    return np.asarray(top[..., -1] - top[..., -2])


@overload
def is_sure(scores: float, settings: ExitSettings) -> bool: ...
@overload
def is_sure(scores: NDArray[np.float64], settings: ExitSettings) -> NDArray[np.bool_]: ...
def is_sure(scores: Any, settings: ExitSettings) -> Any:
    """Whether each score passes the threshold: `entropy` leaves at <=, the others at >=.

    Args:
        scores: one of `score`, or (n,) of them, in the policy's unit.
        settings: of the exit.

    Returns:
        One, or (n,).
    """
    return scores <= settings.threshold if settings.policy == "entropy" else scores >= settings.threshold


def judge(logits: Array, settings: ExitSettings) -> list[Verdict]:
    """What an exit says of a batch.

    Args:
        logits: (batch, classes).
        settings: the exit's policy, threshold and temperature.

    Returns:
        A `Verdict` a sample; its confidence is the largest calibrated probability.
    """
    probs = probabilities(logits, settings.temperature)
    rows = probs.tolist()
    confidences = [max(row) for row in rows]
    scores = confidences if settings.policy == "max_prob" else score(probs, settings.policy).tolist()
    return [
        Verdict(row.index(confidence), confidence, tuple(row), is_sure(score_, settings))
        for confidence, row, score_ in zip(confidences, rows, scores, strict=True)
    ]


def judge_finite(logits: Array, settings: ExitSettings) -> list[Verdict | None]:
    """As `judge` (to a rounding), with None for a sample whose logits are not all finite."""
    values = cast(Any, logits)
    if values.size <= FEW_LOGITS and settings.policy == "max_prob":
        return [_judge_one(row, settings) for row in values.tolist()]
    if math.isfinite(np.vdot(values, values)):  # the quickest look; what overflows here is looked at closely
        return [*judge(logits, settings)]
    finite = np.isfinite(values).all(axis=-1)
    verdicts = judge(np.where(finite[:, None], values, 0.0), settings)
    return [v if ok else None for v, ok in zip(verdicts, finite, strict=True)]


def _judge_one(row: list[float], settings: ExitSettings) -> Verdict | None:
    """`judge_finite` of one sample, without NumPy, which a tier with few requests in flight finds in cold caches."""
    highest, temperature = max(row), settings.temperature
    if not all(map(math.isfinite, row)):
        return None
    exps = [math.exp((logit - highest) / temperature) for logit in row]
    total = sum(exps)
    probs = tuple([each / total for each in exps])
    confidence = max(probs)
    return Verdict(probs.index(confidence), confidence, probs, is_sure(confidence, settings))
