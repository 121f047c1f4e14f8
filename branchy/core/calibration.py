"""Fitting what an exit decides by: its temperature, and thresholds for a wanted share of answers a tier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from branchy.core.cascade import Array, PolicyName

PRIOR_STRENGTH = 4.0
"""How firmly 1 is believed in before any sample is seen: 1/T is then within about half of it."""

_STEPS = 60
_WIDEST = 1e4


def fit_temperature(logits: Array, labels: NDArray[np.int64]) -> float:
    """Temperature that makes softmax(logits / T) likeliest (Guo et al., 2017, section 4.2), given what is known before.

    Cross-entropy has trained the logits for T = 1, so 1/T has a Gamma prior with its mode there
    (maximum a posteriori: Murphy, Probabilistic Machine Learning, 2022, section 4.5). It keeps T from
    what a few samples happen to say, above 0 when all are classified right, and hardly moves it when
    there are many. The posterior is log-concave in 1/T, so its derivative is bisected.

    Args:
        logits: (n, classes), n >= 1.
        labels: (n,) class indices.

    Returns:
        T in 1e-4..1e4; 1 where the logits say nothing at all (each row constant).
    """
    z = np.asarray(logits, dtype=np.float64)
    z = z - z.max(axis=1, keepdims=True)
    wanted = float(z[np.arange(len(z)), labels].sum())

    def slope(inverse: float) -> float:
        p = np.exp(inverse * z)
        p /= p.sum(axis=1, keepdims=True)
        return float((p * z).sum()) - wanted + PRIOR_STRENGTH * (1 - 1 / inverse)

    low, high = math.log(1 / _WIDEST), math.log(_WIDEST)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(math.exp(middle)) < 0 else (low, middle)
    return math.exp(-(low + high) / 2)


@dataclass(frozen=True, slots=True)
class ShareThreshold:
    """An exit's threshold and the share of all samples that leaves there with it."""

    threshold: float
    share: float


def always(policy: PolicyName, classes: int) -> float:
    """The threshold at which every sample leaves.

    Args:
        policy: of the exit.
        classes: how many there are; bounds the entropy (nats).
    """
    return math.log(classes) if policy == "entropy" else 0.0


def share_thresholds(
    scores: Sequence[NDArray[np.float64]], shares: Sequence[float], policy: PolicyName, classes: int
) -> list[ShareThreshold]:
    """Thresholds such that about these shares of all samples leave at each exit.

    Each exit sees only what did not leave before it. Its threshold lies halfway between the last
    score that leaves and the first that stays, so that rounding in another engine changes
    nothing; of equal scores all leave or none, whichever comes nearer to the share.

    Args:
        scores: for each exit in order, (n,) what `policies.score` gave for the same n samples.
        shares: for each exit, of all samples, summing to 1; the last exit takes what is left.
        policy: which scores are sure ones.
        classes: number of classes (bounds the entropy).

    Returns:
        For each exit its threshold and the share reached.
    """
    n = len(scores[0])
    sign = -1.0 if policy == "entropy" else 1.0
    strictest = 0.0 if policy == "entropy" else 1.0
    staying = np.ones(n, dtype=bool)
    out: list[ShareThreshold] = []
    wanted = 0.0
    for exit_scores, share in zip(scores[:-1], shares[:-1], strict=True):
        wanted += share
        count = max(0, round(wanted * n) - (n - int(staying.sum())))
        ordered = -np.sort(-sign * exit_scores[staying])
        best = sign * cut(ordered, count, sign * strictest, sign * always(policy, classes))
        leaving = staying & (sign * exit_scores >= sign * best)
        staying &= ~leaving
        out.append(ShareThreshold(float(best), float(leaving.mean())))
    out.append(ShareThreshold(always(policy, classes), float(staying.mean())))
    return out


def cut(ordered: NDArray[np.float64], count: int, strictest: float, laxest: float) -> float:
    """A threshold with about `count` of these scores at or above it, halfway between two of them.

    Args:
        ordered: (n,) scores, the highest first.
        count: of equal scores all are counted or none, whichever comes nearer to it.
        strictest: the threshold for none of them.
        laxest: the threshold for all of them.
    """
    if count == 0:
        return strictest
    if count >= ordered.size:
        return laxest
    last = ordered[count - 1]
    above, through = int((ordered > last).sum()), int((ordered >= last).sum())
    count = above if count - above < through - count else through
    if count == 0:
        return strictest
    if count == ordered.size:
        return laxest
    return float((ordered[count - 1] + ordered[count]) / 2)
