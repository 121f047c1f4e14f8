"""Whether a confidence means what it says: of the answers given with 0.8, are 80 % right?

Everything here is about the class that an exit names and the probability it gives to it
(Guo, Pleiss, Sun and Weinberger, 2017).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""As in the paper."""
_DRAWS = 400
"""For an interval: 10 of them lie beyond each end of 95 %."""

Binning = Literal["width", "mass"]
Confidences = NDArray[np.float64]
Correct = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The samples with a confidence from low to high: how many, how sure on average, how right (NaN of none)."""

    low: float
    high: float
    samples: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far confidences are from what they say, on some samples; shares in [0, 1].

    Attributes:
        samples: how many.
        ece: expected calibration error, in bins of the same width.
        ece_mass: the same in bins of about as many samples each, which no crowded bin decides alone.
        low: 95 % interval of `ece_mass`, by bootstrap;
        high: its upper end.
        chance: what `ece_mass` of a perfectly calibrated exit with these confidences stays below in 95 % of
            draws of so many samples; below it there is nothing to be seen.
    """

    samples: int
    ece: float
    ece_mass: float
    low: float
    high: float
    chance: float

    @classmethod
    def of(cls, confidence: Confidences, correct: Correct, seed: int = 0) -> Calibration:
        """Of answers; the interval is a percentile bootstrap's (Efron, 1979).

        Args:
            confidence: (n,) of the named classes, n >= 1.
            correct: (n,) whether they are the true ones.
            seed: of the draws.
        """
        n, rng = len(correct), np.random.default_rng(seed)
        place = _places(confidence, _edges(confidence, "mass"))
        off = correct - confidence
        again = [rng.integers(0, n, n) for _ in range(_DRAWS)]
        drawn = np.array([_error(place[rows], off[rows]) for rows in again])
        perfect = np.array([_error(place, (rng.random(n) < confidence) - confidence) for _ in range(_DRAWS)])
        low, high = np.quantile(drawn, [0.025, 0.975])
        return cls(
            samples=n,
            ece=ece(confidence, correct, "width"),
            ece_mass=_error(place, off),
            low=float(low),
            high=float(high),
            chance=float(np.quantile(perfect, 0.95)),
        )


def ece(confidence: Confidences, correct: Correct, binning: Binning = "width", bins: int = BINS) -> float:
    """Expected calibration error: mean distance of accuracy and confidence over bins, each weighed by its samples.

    Biased upwards on few samples, as what chance does to a bin never cancels out: see `Calibration.chance`.

    Args:
        confidence: (n,) in [0, 1], n >= 1.
        correct: (n,).
        binning: bins of the same `width` (Guo et al., 2017), or of about the same `mass` (Nixon et al., 2019).
        bins: how many; fewer where confidences are equal.
    """
    return _error(_places(confidence, _edges(confidence, binning, bins)), correct - confidence)


def reliability(
    confidence: Confidences, correct: Correct, binning: Binning = "width", bins: int = BINS
) -> list[ReliabilityBin]:
    """A reliability diagram as numbers (Guo et al., 2017).

    Args:
        confidence: (n,) in [0, 1], n >= 1.
        correct: (n,).
        binning: as for `ece`.
        bins: how many; fewer where confidences are equal.

    Returns:
        The bins, from the least confident up.
    """
    edges = _edges(confidence, binning, bins)
    place = _places(confidence, edges)
    out = []
    for number, (low, high) in enumerate(itertools.pairwise(edges)):
        inside = place == number
        means = (confidence[inside].mean(), correct[inside].mean()) if inside.any() else (np.nan, np.nan)
        out.append(ReliabilityBin(float(low), float(high), int(inside.sum()), float(means[0]), float(means[1])))
    return out


def _edges(confidence: Confidences, binning: Binning, bins: int = BINS) -> NDArray[np.float64]:
    """(bins + 1,) edges, ascending; equal confidences are never divided, so that the samples' order does not matter."""
    shares = np.linspace(0.0, 1.0, bins + 1)
    if binning == "width":
        return shares
    edges = np.unique(np.quantile(confidence, shares))
    return edges if len(edges) > 1 else np.repeat(edges, 2)


def _places(confidence: Confidences, edges: NDArray[np.float64]) -> NDArray[np.intp]:
    """(n,) the bin of each: from its lower edge on, the last with its upper edge too."""
    return np.minimum(np.searchsorted(edges, confidence, side="right") - 1, len(edges) - 2)


def _error(place: NDArray[np.intp], off: NDArray[np.float64]) -> float:
    return float(np.abs(np.bincount(place, off)).sum() / len(off))
