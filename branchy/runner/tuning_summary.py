"""What a tuning came to, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from branchy.core.cascade import FormatName
from branchy.core.statistics import wilson
from branchy.core.tuning import ExitOutputs, Thresholds
from branchy.reports.text import text_table
from branchy.runner.measuring import CostName, exits_of
from branchy.store.bundle import Bundle


@dataclass(frozen=True)
class Tuned:
    """A written bundle with its thresholds, and what they do to samples that they were not chosen by.

    Attributes:
        bundle: the new one.
        dataset: the data set's name.
        fmt: the format that was tuned.
        names: of the exits, in order.
        chosen: their thresholds.
        tuned_on: how many samples they were chosen by.
        fresh: other samples; those that the certificate is from, where there is one.
        costs: of a sample by the exit at which it leaves, in
        cost: this unit.
    """

    bundle: Bundle
    dataset: str
    fmt: FormatName
    names: tuple[str, ...]
    chosen: Thresholds
    tuned_on: int
    fresh: ExitOutputs
    costs: Sequence[float]
    cost: CostName

    @property
    def shares(self) -> dict[str, float]:
        """Share of the fresh samples that leave at each exit."""
        leaving = self.fresh.leaving(self.chosen)
        return {name: float((leaving == k).mean()) for k, name in enumerate(self.names)}

    @property
    def gap(self) -> float:
        """Accuracy of the full model on the fresh samples less that of the cascade."""
        right = (self._predictions == self.fresh.labels).mean()
        return float((self.fresh.full == self.fresh.labels).mean() - right)

    @property
    def mean_cost(self) -> float:
        """Of a fresh sample."""
        return float(np.take(self.costs, self.fresh.leaving(self.chosen)).mean())

    @property
    def _predictions(self) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        return self.fresh.predictions[self.fresh.leaving(self.chosen), np.arange(len(self.fresh))]

    def text(self) -> str:
        """A line an exit, one for the cascade and one for the full model; and what is promised."""
        header = ("exit", "leaves at", "share", "right", "95 % interval", self.cost)
        settings = exits_of(self.bundle.spec, self.fmt)
        leaving, rows = self.fresh.leaving(self.chosen), []
        right = self._predictions == self.fresh.labels
        for k, name in enumerate(self.names):
            rule = "always" if k == len(self.names) - 1 else settings[name].rule
            rows.append((name, rule, *_cells(right[leaving == k], len(right)), f"{self.costs[k]:,.0f}"))
        rows.append(("cascade", "", *_cells(right, len(right)), f"{self.mean_cost:,.1f}"))
        full = self.fresh.full == self.fresh.labels
        rows.append(("full", "", *_cells(full, len(full)), "-"))
        heading = (
            f"{self.dataset}: thresholds from {self.tuned_on:,} samples, measured on {len(self.fresh):,} others, "
            f"{self.fmt}, {self.fresh.policy}"
        )
        return "\n\n".join([heading, text_table(header, rows, left=2), promise_text(self.bundle)])


def promise_text(bundle: Bundle) -> str:
    """What is promised of a bundle's thresholds, and where it lies, for a terminal.

    Args:
        bundle: as it was written.
    """
    certificate, where = bundle.manifest.certificate, f"bundle {bundle.path} ({bundle.digest[:12]})"
    promise = "nothing is promised of these thresholds" if certificate is None else certificate.promise(bundle.spec)
    return f"{promise}\n\n{where}"


def _cells(right: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], of: int) -> tuple[str, str, str]:
    if not len(right):
        return "0.0%", "-", "-"
    low, high = wilson(int(right.sum()), len(right))
    return f"{len(right) / of:.1%}", f"{right.mean():.2%}", f"{low:.2%} to {high:.2%}"
