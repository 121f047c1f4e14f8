"""How figures of several runs are written."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean and standard deviation, `98.61 ± 0.08`; of a single value there is no deviation."""
    deviation = stdev(values) if len(values) > 1 else 0.0
    return f"{mean(values):.{digits}f} ± {deviation:.{digits}f}"
