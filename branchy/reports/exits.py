"""What each exit of a cascade says of a test set: right, calibrated, and of which class; as tables and CSVs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from branchy.core.policies import probabilities
from branchy.core.reliability import Binning, Calibration, reliability
from branchy.core.statistics import wilson
from branchy.reports.folder import csv_bytes
from branchy.reports.text import text_table

Share = NDArray[np.bool_]


@dataclass(frozen=True)
class ExitView:
    """One exit, on all samples of a test set, whether they would get there or not.

    Attributes:
        name: the stage's; `full` for the full model, `cascade` for whichever exit each sample leaves at.
        labels: (n,) the true classes.
        predictions: (n,) those that it names.
        before: (n,) the probability that it gives to them at a temperature of 1, and
        after: (n,) at its own.
        temperature: its own; None for the cascade, whose exits have one each.
        leaves: (n,) who is answered there; None for the full model.
    """

    name: str
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    temperature: float | None
    leaves: Share | None

    @classmethod
    def of(
        cls, name: str, logits: NDArray[np.generic], labels: NDArray[np.int64], temperature: float, leaves: Share | None
    ) -> ExitView:
        """From what an exit says of n samples.

        Args:
            name: of the exit.
            logits: (n, classes).
            labels: (n,) the true class indices.
            temperature: of the exit.
            leaves: (n,) who is answered there; None for the full model.
        """
        before, after = probabilities(logits), probabilities(logits, temperature)
        named = after.argmax(axis=1)
        return cls(name, labels, named, before.max(axis=1), after.max(axis=1), temperature, leaves)

    @property
    def right(self) -> Share:
        """(n,) where it names the true class."""
        return np.asarray(self.predictions == self.labels)

    def confidence(self, when: Literal["before", "after"]) -> NDArray[np.float64]:
        """Of the named classes.

        Args:
            when: before or after its temperature.

        Returns:
            (n,) in [0, 1].
        """
        return self.before if when == "before" else self.after

    def calibration(self, when: Literal["before", "after"]) -> Calibration:
        """Of its confidences.

        Args:
            when: before or after its temperature.
        """
        return Calibration.of(self.confidence(when), self.right)


def as_cascade(exits: Sequence[ExitView]) -> ExitView:
    """The cascade as one exit: each sample has the answer of the exit where it leaves.

    Args:
        exits: all of them, in order, of the same n samples, of which each leaves at one.
    """
    leaving = np.stack([view.leaves for view in exits if view.leaves is not None]).argmax(axis=0)
    here = (leaving, np.arange(len(leaving)))
    return ExitView(
        "cascade",
        exits[0].labels,
        np.stack([view.predictions for view in exits])[here],
        np.stack([view.before for view in exits])[here],
        np.stack([view.after for view in exits])[here],
        None,
        np.ones(len(leaving), dtype=bool),
    )


def calibration_table(views: Sequence[ExitView]) -> str:
    """How right each exit is on all samples, and how far its confidence is from that, for a terminal."""
    header = ("on all samples", "right", "95 % interval", "T", "ECE before", "after", "95 % interval", "by chance")
    rows = []
    for view in views:
        before, after = view.calibration("before"), view.calibration("after")
        low, high = wilson(int(view.right.sum()), len(view.labels))
        rows.append(
            (
                view.name,
                f"{view.right.mean():.1%}",
                f"{low:.1%} to {high:.1%}",
                "-" if view.temperature is None else f"{view.temperature:.2f}",
                f"{before.ece_mass:.1%}",
                f"{after.ece_mass:.1%}",
                f"{after.low:.1%} to {after.high:.1%}",
                f"{after.chance:.1%}",
            )
        )
    return text_table(header, rows)


def exit_files(views: Sequence[ExitView], classes: Sequence[str]) -> dict[str, bytes]:
    """The contents of `exits.csv`, `reliability.csv`, `classes.csv` and `confusion.csv`.

    Args:
        views: of the exits, the cascade and the full model; the full model's last.
        classes: their names.
    """
    return {
        "exits.csv": csv_bytes(_EXITS, map(_exit_row, views)),
        "reliability.csv": csv_bytes(_BINS, (row for view in views for row in _bin_rows(view))),
        "classes.csv": csv_bytes(_CLASSES, (row for view in views for row in _class_rows(view, views[-1], classes))),
        "confusion.csv": csv_bytes(_CONFUSION, (row for view in views for row in _confusion_rows(view, classes))),
    }


_EXITS = (
    *("exit", "samples", "accuracy", "accuracy_low", "accuracy_high", "left", "share", "accuracy_of_left"),
    *(
        "temperature",
        "ece_before",
        "ece_mass_before",
        "ece",
        "ece_mass",
        "ece_mass_low",
        "ece_mass_high",
        "ece_mass_by_chance",
    ),
)


def _exit_row(view: ExitView) -> tuple[object, ...]:
    before, after, n = view.calibration("before"), view.calibration("after"), len(view.labels)
    left = None if view.leaves is None else int(view.leaves.sum())
    return (
        *(view.name, n, float(view.right.mean()), *wilson(int(view.right.sum()), n)),
        *(left, left / n if left is not None else None, float(view.right[view.leaves].mean()) if left else None),
        *(
            view.temperature,
            before.ece,
            before.ece_mass,
            after.ece,
            after.ece_mass,
            after.low,
            after.high,
            after.chance,
        ),
    )


_BINS = ("exit", "temperature", "bins", "low", "high", "samples", "confidence", "accuracy")


def _bin_rows(view: ExitView) -> Iterator[tuple[object, ...]]:
    whens: tuple[Literal["before", "after"], ...] = ("before", "after")
    binnings: tuple[Binning, ...] = ("width", "mass")
    for when in whens:
        for binning in binnings:
            for found in reliability(view.confidence(when), view.right, binning):
                figures = (found.low, found.high, found.samples, found.confidence, found.accuracy)
                yield (view.name, when, binning, *figures)


_CLASSES = (
    *("exit", "class", "samples", "accuracy", "accuracy_low", "accuracy_high", "gap_to_full"),
    *("named", "confidence_when_named", "accuracy_when_named", "calibration_gap"),
)


def _class_rows(view: ExitView, full: ExitView, classes: Sequence[str]) -> Iterator[tuple[object, ...]]:
    """Of the samples of a class, how many are right; of those that are said to be of it, how sure and how right."""
    for index, name in enumerate(classes):
        is_, named = view.labels == index, view.predictions == index
        n, right = int(is_.sum()), int(view.right[is_].sum())
        accuracy = right / n if n else None
        gap = float(full.right[is_].mean() - view.right[is_].mean()) if n else None
        said = (float(view.after[named].mean()), float(view.right[named].mean())) if named.any() else None
        yield (
            *(view.name, name, n, accuracy, *(wilson(right, n) if n else (None, None)), gap),
            *(int(named.sum()), *(said or (None, None)), said[0] - said[1] if said else None),
        )


_CONFUSION = ("exit", "true", "predicted", "samples")


def _confusion_rows(view: ExitView, classes: Sequence[str]) -> Iterator[tuple[object, ...]]:
    k = len(classes)
    counts = np.bincount(view.labels * k + view.predictions, minlength=k * k)
    for cell, count in enumerate(counts.tolist()):
        if count:
            yield view.name, classes[cell // k], classes[cell % k], count
