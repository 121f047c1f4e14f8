"""Disjoint parts that keep the classes' shares."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from branchy.datasets.dataset import Indices


def stratified(labels: NDArray[np.int64], shares: Sequence[float], seed: int) -> list[Indices]:
    """Split positions into disjoint parts; each class is spread over them by the shares.

    Systematic sampling in each class: shuffled, then cut at the cumulative shares from a random
    start, so that small classes are not all rounded the same way.

    Args:
        labels: (n,) class indices.
        shares: of each part, above or equal to 0, summing to 1.
        seed: of the shuffles; the same gives the same parts.

    Returns:
        For each share the positions, ascending; together each of 0..n-1 once.
    """
    if min(shares) < 0 or not math.isclose(sum(shares), 1.0):
        raise ValueError(f"expected shares that sum to 1, got {list(shares)}")
    rng = np.random.default_rng(seed)
    edges = np.cumsum(shares)[:-1]
    part = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        place = (np.arange(len(members)) + rng.random()) / len(members)
        part[members] = np.searchsorted(edges, place, side="right")
    return [np.flatnonzero(part == i) for i in range(len(shares))]
