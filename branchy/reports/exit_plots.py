"""Plots of what a cascade's exits are worth: reliability diagrams, and accuracy against cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from branchy.core.reliability import reliability
from branchy.core.statistics import wilson
from branchy.reports.exits import ExitView
from branchy.reports.plots import COLOURS, FAINT, INK, NOBODY, new_figure, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "D", "^", "v", "P")


def reliability_plot(views: Sequence[ExitView]) -> Figure:
    """A reliability diagram an exit, before and after its temperature, over the shares of the confidences.

    Args:
        views: at least one.
    """
    figure = new_figure(3.1 * len(views), 4.4)
    panels = figure.subplots(2, len(views), squeeze=False, sharex=True, sharey="row", height_ratios=(3, 1))
    for column, view in enumerate(views):
        diagram, shares = panels[0, column], panels[1, column]
        diagram.plot([0, 100], [0, 100], color=FAINT, linewidth=1.2, zorder=0)
        _line(diagram, view, "before", NOBODY)
        _line(diagram, view, "after", COLOURS[column % len(COLOURS)])
        before, after = (view.calibration(when).ece_mass for when in ("before", "after"))
        diagram.set_title(f"{view.name}\nECE {100 * before:.1f} → {100 * after:.1f} %", fontsize=10)
        found = reliability(view.after, view.right)
        middles = [50 * (each.low + each.high) for each in found]
        heights = [100 * each.samples / len(view.labels) for each in found]
        shares.bar(middles, heights, width=90 / len(found), color=COLOURS[column % len(COLOURS)])
        shares.set_xlabel("confidence, %")
        for axes in (diagram, shares):
            plain_axes(axes, grid="both")
    panels[0, 0].set(ylabel="right, % (95 % interval)", xlim=(0, 100), ylim=(0, 100))
    panels[0, 0].legend(loc="upper left", frameon=False, fontsize=9)
    panels[1, 0].set_ylabel("samples, %")
    return figure


def _line(axes: Axes, view: ExitView, when: str, colour: str) -> None:
    """One diagram's points, those after the temperature with their intervals."""
    after = when == "after"
    found = [each for each in reliability(view.after if after else view.before, view.right) if each.samples]
    x = 100 * np.array([each.confidence for each in found])
    y = 100 * np.array([each.accuracy for each in found])
    if after:
        ends = [wilson(round(each.accuracy * each.samples), each.samples) for each in found]
        axes.vlines(x, [100 * low for low, _ in ends], [100 * high for _, high in ends], color=colour, linewidth=1)
    axes.plot(x, y, "o-" if after else "o--", color=colour, markersize=4, linewidth=1.4, label=f"{when} T")


@dataclass(frozen=True, slots=True)
class Curve:
    """What accuracies a cascade can have, cheapest first, and single points beside it: (cost, accuracy in [0, 1])."""

    unit: str
    costs: Sequence[float]
    accuracies: Sequence[float]
    points: Mapping[str, tuple[float, float]]


def pareto_plot(curves: Sequence[Curve]) -> Figure:
    """Accuracy against mean cost, a panel a cost: the cascade over its thresholds, and what it is held against.

    Args:
        curves: at least one, all with the same points by name.
    """
    from matplotlib.ticker import EngFormatter

    figure = new_figure(3.6 * len(curves), 4.0)
    panels = figure.subplots(1, len(curves), squeeze=False, sharey=True)[0]
    for axes, curve in zip(panels, curves, strict=True):
        most = max([*curve.costs, *(cost for cost, _ in curve.points.values())])
        x, y = [*curve.costs, most], 100 * np.array([*curve.accuracies, curve.accuracies[-1]])
        axes.step(x, y, where="post", color=INK, linewidth=1.4, label="cascade, best thresholds here")
        for number, (name, (cost, accuracy)) in enumerate(curve.points.items()):
            axes.plot(
                cost,
                100 * accuracy,
                marker=MARKERS[number % len(MARKERS)],
                markersize=8,
                linestyle="none",
                color=COLOURS[number % len(COLOURS)],
                clip_on=False,
                zorder=3,
                label=name,
            )
        axes.set_xlabel(f"{curve.unit} a sample")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        plain_axes(axes, grid="both")
    panels[0].set_ylabel("right, %")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure
