"""Is this exit sure? Softmax with a temperature and three exit policies.

`max_prob` and `margin` are shares, `entropy` is the criterion of BranchyNet
(Teerapittayanon et al., 2016) in nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from branchy.core.cascade import Array, ExitSettings, PolicyName

_NOTHING = -800.0
"""exp of it is 0 in float64."""


@dataclass(frozen=True, slots=True)
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
    scaled = np.array(logits, dtype=np.float64)
    scaled -= np.maximum.reduce(scaled, axis=-1, keepdims=True)
    np.maximum(scaled, _NOTHING * temperature, out=scaled)  # so that no tiny T makes the division overflow
    scaled /= temperature
    np.exp(scaled, out=scaled)
    scaled /= np.add.reduce(scaled, axis=-1, keepdims=True)
    return np.asarray(scaled)


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


def is_sure(scores: NDArray[np.float64], settings: ExitSettings) -> NDArray[np.bool_]:
    """Whether each score passes the threshold: `entropy` leaves at <=, the others at >=.

    Args:
        scores: (n,) of `score`, in the policy's unit.
        settings: of the exit.

    Returns:
        (n,).
    """
    if settings.policy == "entropy":
        return np.asarray(scores <= settings.threshold)
    return np.asarray(scores >= settings.threshold)


def judge(logits: Array, settings: ExitSettings) -> list[Verdict]:
    """What an exit says of a batch.

    Args:
        logits: (batch, classes).
        settings: the exit's policy, threshold and temperature.

    Returns:
        A `Verdict` a sample; its confidence is the largest calibrated probability.
    """
    probs = probabilities(logits, settings.temperature)
    sure = is_sure(score(probs, settings.policy), settings)
    rows = zip(probs.argmax(axis=-1).tolist(), probs.tolist(), sure.tolist(), strict=True)
    return [Verdict(index, row[index], tuple(row), is_) for index, row, is_ in rows]
