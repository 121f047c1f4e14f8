"""The two statistics that every report gives: an interval of a share, and quantiles of times."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def wilson(correct: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a share (Wilson, 1927); unlike the normal one it holds near 0 and 1.

    Args:
        correct: how many of
        n: the samples were right; none gives the whole of [0, 1].
        z: quantile of the standard normal distribution, 1.96 for 95 %.

    Returns:
        Lower and upper bound, in [0, 1].

    Raises:
        ValueError: fewer than none or more than all are right.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"expected 0 <= correct <= n, got {correct} of {n}")
    if n == 0:
        return 0.0, 1.0
    share, z2 = correct / n, z * z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == n else min(1.0, centre + half)
    return low, high


def quantile(values: Sequence[float], q: float) -> float:
    """A quantile, linear between order statistics.

    Args:
        values: in any unit and order.
        q: in [0, 1].

    Returns:
        In the same unit; NaN where there are no values.
    """
    return float(np.quantile(np.asarray(values, dtype=np.float64), q)) if len(values) else math.nan
