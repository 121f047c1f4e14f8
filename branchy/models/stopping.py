"""How good the cascade is after an epoch, and which epoch was the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from branchy.core.calibration import always, fit_temperature, share_thresholds
from branchy.core.cascade import Array, PolicyName
from branchy.core.policies import probabilities, score
from branchy.core.tuning import ExitOutputs

StopOn = Literal["cascade", "loss"]


@dataclass(frozen=True, slots=True)
class Goal:
    """How the exits of the finished cascade shall decide.

    Attributes:
        policy: of all exits.
        thresholds: one an exit, in order (the last always answers), or
        shares: of the answers that shall leave at each exit, summing to 1.
        flops: what a sample has cost when it leaves at each exit.
    """

    policy: PolicyName
    thresholds: Sequence[float]
    shares: Sequence[float] | None
    flops: Sequence[int]


@dataclass(frozen=True, slots=True)
class CascadeScore:
    """What the cascade would do to some samples.

    Attributes:
        accuracy: share of right answers.
        loss: mean negative log-likelihood of the answers' calibrated probabilities, nats.
        flops: mean floating point operations of a sample.
    """

    accuracy: float
    loss: float
    flops: float


def cascade_score(logits: NDArray[np.float32], labels: NDArray[np.int64], goal: Goal) -> CascadeScore:
    """Let each sample leave at the first exit that is sure, as it would in the finished cascade.

    Temperatures, and thresholds where shares are asked for, are fitted on the same samples: one
    number an exit.

    Args:
        logits: (exits, n, classes) finite.
        labels: (n,) class indices.
        goal: how exits decide.

    Returns:
        Over these samples.
    """
    probs = np.stack([probabilities(z, fit_temperature(z, labels)) for z in logits])
    scores = score(probs, goal.policy)
    classes = probs.shape[-1]
    thresholds = [*goal.thresholds[:-1], always(goal.policy, classes)]
    if goal.shares is not None:
        thresholds = [each.threshold for each in share_thresholds(list(scores), goal.shares, goal.policy, classes)]
    predictions = probs.argmax(axis=-1)
    names = tuple(str(exit_) for exit_ in range(len(probs)))
    outputs = ExitOutputs(names, goal.policy, scores, predictions, predictions[-1], labels, classes)
    leaving, rows = outputs.leaving(tuple(thresholds)), np.arange(len(labels))
    likelihood = np.maximum(probs[leaving, rows, labels], np.finfo(np.float64).tiny)
    return CascadeScore(
        accuracy=float((predictions[leaving, rows] == labels).mean()),
        loss=float(-np.log(likelihood).mean()),
        flops=float(np.asarray(goal.flops, np.float64)[leaving].mean()),
    )


def rank(stop_on: StopOn, cascade: CascadeScore, joint_loss: float, goal: Goal) -> tuple[float, ...]:
    """What is compared between epochs; the lowest is the best.

    `cascade`: the share of wrong answers; between equal ones the cost of a sample, where it is not
    settled by the shares that are asked for; then the joint loss. `loss`: the joint loss, which is the
    weighted sum of all exits' losses.

    Args:
        stop_on: which of the two.
        cascade: of the epoch.
        joint_loss: of the epoch, nats.
        goal: how exits decide.
    """
    if stop_on == "loss":
        return (joint_loss,)
    return 1 - cascade.accuracy, cascade.flops if goal.shares is None else 0.0, joint_loss


def exit_losses(logits: Array, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each exit's mean cross-entropy with the labels.

    Args:
        logits: (exits, n, classes), not scaled by temperatures.
        labels: (n,) class indices.

    Returns:
        (exits,) nats; not finite where logits are not.
    """
    z = np.asarray(logits, np.float64)
    z = z - z.max(axis=-1, keepdims=True)
    true = np.take_along_axis(z, np.broadcast_to(labels[None, :, None], (len(z), len(labels), 1)), axis=-1)[..., 0]
    return np.asarray((np.log(np.exp(z).sum(axis=-1)) - true).mean(axis=-1))
