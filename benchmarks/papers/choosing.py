"""Which thresholds a row of a table has: chosen on held-out samples by a rule that was settled before any test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.papers.tables import Published
from branchy.core.tuning import ExitOutputs, Thresholds, at, frontier


def least_accuracies(full: float, published: Published) -> dict[str, float]:
    """By rule the accuracy (a share) that thresholds must reach where they are chosen.

    Args:
        full: of our network without exits, on the same samples.
        published: the paper's row.

    Returns:
        `no drop`: that of the full net. `paper's drop`: as far from it as the paper's two are from each other.
    """
    return {"no drop": full, "paper's drop": full + (published.accuracy - published.full_accuracy) / 100}


def cheapest(tuning: ExitOutputs, costs: Sequence[float], least: float) -> Thresholds:
    """The thresholds of least mean cost that reach an accuracy; the most accurate where none reaches it.

    Args:
        tuning: what the exits say of the samples to choose by.
        costs: of a sample by the exit at which it leaves.
        least: accuracy, a share.
    """
    vectors = frontier(tuning, "error", costs)
    reached = [vector for vector in vectors if accuracy(tuning, vector) >= least]
    return reached[-1] if reached else vectors[0]


def accuracy(outputs: ExitOutputs, thresholds: Thresholds) -> float:
    """Share of the samples that the cascade gets right."""
    return 1 - float(at(outputs.losses("error"), outputs.leaving(thresholds)).mean())


def shares(outputs: ExitOutputs, thresholds: Thresholds) -> list[float]:
    """Share of the samples that leave at each exit."""
    leaving = outputs.leaving(thresholds)
    return [float(share) for share in np.bincount(leaving, minlength=len(outputs.names)) / len(outputs)]
