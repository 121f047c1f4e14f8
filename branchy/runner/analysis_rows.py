"""The lines of what an analysis writes and prints: thresholds that were swept, and options side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from branchy.core.payoff import Option
from branchy.core.statistics import wilson
from branchy.core.tuning import Thresholds

Unit = Literal["FLOPs", "ms", "bytes"]


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One vector of thresholds on the test samples: how many right of how many, the share an exit, mean costs."""

    thresholds: Thresholds
    right: int
    samples: int
    shares: tuple[float, ...]
    means: Mapping[Unit, float]


def sweep_rows(sweeps: Mapping[Unit, Sequence[SweepRow]]) -> Iterator[tuple[object, ...]]:
    """The lines of `sweep.csv`: what is cheapest in, early thresholds, accuracy with its interval, shares, means.

    Args:
        sweeps: by the cost that they are cheapest in.
    """
    for unit, rows in sweeps.items():
        for row in rows:
            accuracy = row.right / row.samples
            means = tuple(row.means.values())
            per_right = tuple(mean / accuracy if accuracy else None for mean in means)
            interval = wilson(row.right, row.samples)
            yield (unit.lower(), *row.thresholds[:-1], accuracy, *interval, *row.shares, *means, *per_right)


OPTIONS = ("option", "accuracy", "accuracy_low", "accuracy_high", "ms", "bytes", "ms_per_right", "bytes_per_right")
"""The columns of `options.csv`."""


def option_row(option: Option) -> tuple[object, ...]:
    """A line of `options.csv`.

    Args:
        option: the cascade, or what it is held against.
    """
    interval = wilson(int(option.right.sum()), len(option.right))
    per_right = (option.per_right(option.ms), option.per_right(option.bytes_up))
    return (option.name, option.accuracy, *interval, option.mean_ms, option.mean_bytes, *per_right)


def option_cells(option: Option) -> tuple[str, ...]:
    """The same for a terminal, without the interval.

    Args:
        option: the cascade, or what it is held against.
    """
    per_right = (f"{option.per_right(option.ms):,.2f}", f"{option.per_right(option.bytes_up):,.0f}")
    return (option.name, f"{option.accuracy:.1%}", f"{option.mean_ms:,.2f}", f"{option.mean_bytes:,.0f}", *per_right)
