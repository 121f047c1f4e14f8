"""Chance without a state: a number that follows from a key and a sample's index alone.

What is drawn so is the same in whichever order, batch or thread it is asked for, and after a
resume: there is no generator whose position would have to be kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_STEP = np.uint64(0x9E3779B97F4A7C15)


def uniform(indices: NDArray[np.int64], *key: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each index, by SplitMix64 (Steele, Lea and Flood, 2014).

    Args:
        indices: (n,) of samples in their data set.
        key: what the draw is for, such as seed, epoch and a number of its own; each at or above 0.

    Returns:
        (n,); other indices or another key give numbers that have nothing to do with these.
    """
    state = np.zeros(1, dtype=np.uint64)
    for part in key:
        state = _mixed(state + _STEP + np.uint64(part))
    bits = _mixed(_mixed(state + indices.astype(np.uint64) * _STEP) + _STEP)
    return np.asarray((bits >> np.uint64(11)) * 2.0**-53)


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
