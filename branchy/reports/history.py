"""A training's history: a CSV with a row an epoch, and plots of every exit's accuracy and loss."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

DELIMITER = ";"


def write_csv(path: Path, history: Mapping[str, Sequence[float]]) -> None:
    """Write a history, `;` between.

    Args:
        path: where to.
        history: by name (`loss`, `val_loss`, `STAGE_accuracy`, ...) a value an epoch.
    """
    names = sorted(history)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=DELIMITER, lineterminator="\n")
        writer.writerow(["epoch", *names])
        for epoch, values in enumerate(zip(*(history[name] for name in names), strict=True), start=1):
            writer.writerow([epoch, *(repr(float(v)) for v in values)])


def plot(folder: Path, history: Mapping[str, Sequence[float]], exits: Sequence[str]) -> None:
    """Write `accuracy.png` and `loss.png`: every exit's, training dashed and validation solid.

    Args:
        folder: where to.
        history: as for `write_csv`.
        exits: names of the stages with an exit, in order.
    """
    for what in ("accuracy", "loss"):
        curves = {name: (history[f"{name}_{what}"], history[f"val_{name}_{what}"]) for name in exits}
        _draw(folder / f"{what}.png", what, curves)


def _draw(path: Path, what: str, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for i, (name, (training, validation)) in enumerate(curves.items()):
        epochs = range(1, len(training) + 1)
        axes.plot(epochs, training, "--", color=f"C{i}", alpha=0.6, label=f"{name}, training")
        axes.plot(epochs, validation, "-", color=f"C{i}", marker=".", label=f"{name}, validation")
    axes.set(xlabel="epoch", ylabel=what)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
