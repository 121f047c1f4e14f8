"""A report's plots: who answered and why, how fast, how right. Drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from branchy.core.statistics import wilson

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7a6a00")
"""Of the tiers; told apart by colour-blind readers too (Okabe and Ito, 2008)."""
RUN_LOOKS = (("#222222", "o"), ("#b5179e", "s"), ("#3d8b96", "D"), ("#9c6b1e", "^"), ("#6b6bd6", "v"))
"""Colour and marker of the runs where tiers are lines."""
INK, FAINT, NOBODY = "#222222", "#d9d9d9", "#9a9a9a"
DPI = 144
HATCHES = {"timeout": "////", "unreachable": "\\\\\\\\", "rejected": "xxxx", "overload": "....", "handover": "++++"}
"""Of the reasons for which a tier stands in for its front; those for which it answers of its own wish have none."""


def answers_plot(requests: pd.DataFrame) -> Figure:
    """Who answered and why: a bar a run, a colour a tier, a hatch where a tier stood in for its front.

    Args:
        requests: as from `tables.requests_frame`.
    """
    runs = list(requests["run"].cat.categories)
    figure = new_figure(8.0, 1.5 + 0.5 * len(runs))
    axes = figure.add_subplot()
    legend: dict[str, Patch] = {}
    for place, run in enumerate(runs):
        left = 0.0
        of_run = requests[requests["run"] == run]
        for part in _parts(of_run):
            width = 100 * part.requests / len(of_run)
            bar = axes.barh(
                place, width, left=left, height=0.64, facecolor=part.colour, edgecolor="white", hatch=part.hatch
            )
            legend.setdefault(part.label, bar[0])
            if width >= 5:
                box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
                axes.text(left + width / 2, place, f"{width:.0f} %", ha="center", va="center", fontsize=9, bbox=box)
            left += width
    axes.set(yticks=range(len(runs)), yticklabels=runs, xlim=(0, 100), xlabel="share of the requests, %")
    axes.invert_yaxis()
    plain_axes(axes, grid="x")
    axes.tick_params(axis="y", length=0)
    figure.legend(list(legend.values()), list(legend), loc="outside lower center", ncols=4, frameon=False)
    return figure


def latency_plot(requests: pd.DataFrame) -> Figure:
    """How fast: for each run the share of the answers that came within a time, in all and by answering tier.

    Args:
        requests: as from `tables.requests_frame`.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    colours = _colours(requests["tier"])
    answered = requests[requests["predicted"].notna() & requests["latency_s"].notna()]
    runs = list(requests["run"].cat.categories)
    columns = min(3, len(runs))
    rows = -(-len(runs) // columns)
    times = answered["latency_s"]
    # Over a wide range only the powers of ten find room for their numbers.
    subs = (1.0, 2.0, 5.0) if len(times) and times.max() < 30 * times.min() else (1.0,)
    figure = new_figure(max(5.5, 3.6 * columns), 0.6 + 3.0 * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, run in zip(panels, runs, strict=False):
        of_run = answered[answered["run"] == run]
        for tier, group in of_run.groupby("tier", observed=True):
            _share_within(axes, group["latency_s"], color=colours[str(tier)], label=str(tier), linewidth=1.8)
        if of_run["tier"].nunique() > 1:
            _share_within(axes, of_run["latency_s"], color=INK, label="all", linewidth=1.2, linestyle=(0, (4, 2)))
        for share in (50, 99):
            axes.axhline(share, color=FAINT, linewidth=0.8, zorder=0)
        axes.set(xscale="log", ylim=(0, 100.5), yticks=(0, 25, 50, 75, 99), title=run)
        axes.set_xlabel("round trip, ms")
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        plain_axes(axes, grid="x")
        if len(of_run):
            axes.legend(loc="lower right", frameon=False)
    for axes in panels[len(runs) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel("answered within, %")
    return figure


def accuracy_plot(requests: pd.DataFrame, exits: pd.DataFrame) -> Figure:
    """How right, with 95 % Wilson intervals: of all answers, of each tier's answers, and of each exit.

    Args:
        requests: as from `tables.requests_frame`.
        exits: as from `tables.exits_frame`.
    """
    runs = list(requests["run"].cat.categories)
    tiers = list(requests["tier"].cat.categories)
    answers = requests[requests["predicted"].notna()]
    groups = {"all answers": answers}
    groups |= {f"answers by {tier}": answers[answers["tier"] == tier] for tier in tiers}
    for tier in tiers:
        saw = exits[exits["tier"] == tier]
        if len(saw) > len(groups[f"answers by {tier}"]):
            groups[f"exit of {tier}, on all it saw"] = saw
    figure = new_figure(8.0, 1.2 + (0.2 + 0.14 * len(runs)) * len(groups))
    axes = figure.add_subplot()
    for number, run in enumerate(runs):
        offset = 0.0 if len(runs) == 1 else 0.56 * (number / (len(runs) - 1) - 0.5)
        colour, marker = RUN_LOOKS[number % len(RUN_LOOKS)]
        for place, group in enumerate(groups.values()):
            correct = group.loc[group["run"] == run, "correct"].dropna()
            if len(correct):
                low, high = (100 * end for end in wilson(int(correct.sum()), len(correct)))
                axes.plot([low, high], [place + offset] * 2, color=colour, linewidth=1.8)
                axes.plot(100 * float(correct.mean()), place + offset, marker, color=colour, markersize=5.5)
        axes.plot([], [], f"{marker}-", color=colour, label=run)
    for place in range(1, len(groups)):
        axes.axhline(place - 0.5, color=FAINT, linewidth=0.6)
    axes.set(yticks=range(len(groups)), yticklabels=list(groups), ylim=(-0.5, len(groups) - 0.5))
    axes.invert_yaxis()
    axes.set_xlabel("right, % (with 95 % Wilson interval)")
    axes.set_xlim(right=100.8)
    plain_axes(axes, grid="x")
    axes.tick_params(axis="y", length=0)
    if len(runs) > 1:
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def png(figure: Figure) -> bytes:
    """A plot as a PNG file's content."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI)
    return out.getvalue()


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a run's bar."""

    label: str
    colour: str
    hatch: str | None
    requests: int


def _parts(of_run: pd.DataFrame) -> Iterator[_Part]:
    colours = _colours(of_run["tier"])
    labelled = of_run[of_run["predicted"].notna()]
    for tier, answers in labelled.groupby("tier", observed=True):
        for reason, group in answers.groupby("reason"):
            yield _Part(f"{tier}, {reason}", colours[str(tier)], HATCHES.get(str(reason)), len(group))
    refused = int((of_run["predicted"].isna() & of_run["tier"].notna()).sum())
    unanswered = int(of_run["tier"].isna().sum())
    if refused:
        yield _Part("refused", NOBODY, None, refused)
    if unanswered:
        yield _Part("unanswered", INK, None, unanswered)


def _colours(tier: pd.Series[str]) -> dict[str, str]:
    return {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(tier.cat.categories)}


def _share_within(axes: Axes, seconds: pd.Series[float], **look: Any) -> None:
    """The share, in %, of the values that are not above a time in ms: at most a thousand steps."""
    values = np.sort(1e3 * seconds.to_numpy(dtype=np.float64))
    ends = np.unique(np.linspace(0, len(values) - 1, min(len(values), 1000)).astype(int))
    axes.step(values[ends], 100 * (ends + 1) / len(values), where="post", **look)


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def plain_axes(axes: Axes, grid: Literal["both", "x", "y"]) -> None:
    """Take everything from axes but what is read."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(color=FAINT)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color=FAINT, linewidth=0.6)
