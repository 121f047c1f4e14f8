"""What a bundle's exits are worth on a test set, what other thresholds would give, and whether the cascade pays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from branchy.core.cascade import FULL, CascadeSpec, FormatName, PolicyName, override_exits
from branchy.core.payoff import (
    Comparison,
    Option,
    Site,
    at_infinite_rate,
    break_even,
    exit_bytes,
    exit_ms,
    sent_whole_ms,
    verdict,
)
from branchy.core.tuning import ExitOutputs, Thresholds, frontier
from branchy.datasets import Dataset
from branchy.errors import MissingExtraError
from branchy.reports.exit_plots import Curve, pareto_plot, reliability_plot
from branchy.reports.exits import ExitView, as_cascade, calibration_table, exit_files
from branchy.reports.folder import csv_bytes, make_folder, write_files
from branchy.reports.plots import png
from branchy.reports.text import listed, text_table
from branchy.runner.analysis_rows import OPTIONS, SweepRow, Unit, option_cells, option_row, sweep_rows
from branchy.runner.measuring import Measured, exit_costs, exits_of, measure
from branchy.runner.stage_times import Timed, time_stages
from branchy.store.bundle import Bundle

FEW = 200
"""Fewer samples than this leave 15 bins with about a dozen each."""
MOST_ROWS = 200
"""Of a sweep; a finer one is thinned out."""


def site_of(
    spec: CascadeSpec,
    fmt: FormatName,
    uplink_mbit: Sequence[float],
    rtt_ms: Sequence[float],
    slower: Sequence[float],
) -> Site:
    """Links and computers for a cascade with a tier for each exit.

    Args:
        spec: the cascade.
        fmt: whose exits count.
        uplink_mbit: megabits a second, one number for every cut or one a cut.
        rtt_ms: there and back, the same.
        slower: times, from the first tier on.

    Raises:
        UsageError: see `Site.of`.
        BundleError: a stage is not exported in that format.
    """
    return Site.of(len(exits_of(spec, fmt)), uplink_mbit, rtt_ms, slower)


def analyse(
    bundle: Bundle,
    dataset: Dataset,
    site: Site,
    *,
    fmt: FormatName = "litert",
    threads: int = 1,
    policy: PolicyName | None = None,
    thresholds: Mapping[str, float] | float | None = None,
) -> Analysis:
    """Run every exit on every test sample, and time the stages.

    Args:
        bundle: a loaded bundle.
        dataset: that fits it.
        site: where it would run; from `site_of`.
        fmt: which of the bundle's formats is run.
        threads: how many threads one batch may use.
        policy: instead of the bundle's.
        thresholds: instead of the bundle's.

    Raises:
        UsageError: see `Cascade`.
        EngineError: see `measure`.
        DatasetError: a sample cannot be read.
    """
    spec = override_exits(bundle.spec, fmt, policy=policy, thresholds=thresholds)
    exits = exits_of(spec, fmt)
    (measured,) = measure(bundle, [dataset.test], fmt, threads, policy)
    timed = time_stages(bundle, dataset.test, fmt, threads)
    own = tuple(settings.threshold for settings in exits.values())
    return Analysis(spec, fmt, measured, own, timed, site)


@dataclass(frozen=True)
class Analysis:
    """What was measured.

    Attributes:
        spec: the cascade with the thresholds that count.
        fmt: the format that was run.
        measured: every exit on every sample.
        thresholds: of the exits, in order.
        timed: on this machine.
        site: where it would run.
    """

    spec: CascadeSpec
    fmt: FormatName
    measured: Measured
    thresholds: Thresholds
    timed: Timed
    site: Site

    @property
    def outputs(self) -> ExitOutputs:
        """Of every exit on every sample."""
        return self.measured.outputs

    def views(self) -> list[ExitView]:
        """The exits in order, the cascade, the full model."""
        leaving, labels = self.outputs.leaving(self.thresholds), self.outputs.labels
        exits = [
            ExitView.of(name, self.measured.logits[name], labels, settings.temperature, leaving == k)
            for k, (name, settings) in enumerate(exits_of(self.spec, self.fmt).items())
        ]
        settings = self.spec.full.exit_settings(self.fmt)
        temperature = settings.temperature if settings is not None else 1.0
        return [*exits, as_cascade(exits), ExitView.of(FULL, self.measured.logits[FULL], labels, temperature, None)]

    def cascade(self, site: Site | None = None) -> Option:
        """The cascade with its thresholds.

        Args:
            site: instead of its own.
        """
        leaving = self.outputs.leaving(self.thresholds)
        right = self.outputs.predictions[leaving, np.arange(len(leaving))] == self.outputs.labels
        ms, sent = exit_ms(self.timed.tiers, site or self.site), exit_bytes(self.timed.tiers)
        return Option("cascade", right, np.take(ms, leaving), np.take(sent, leaving))

    def alternatives(self, site: Site | None = None) -> list[Option]:
        """Doing without: the first exit alone; the full model, sent to or on the spot.

        Args:
            site: instead of its own.
        """
        there, full = site or self.site, self.timed.full
        edge = self.outputs.predictions[0] == self.outputs.labels
        right = self.outputs.full == self.outputs.labels
        first, last = self.timed.tiers[0].name, self.timed.tiers[-1].name
        sent_ms = sent_whole_ms(full.compute_ms, full.bytes_up, there)
        return [
            Option.same_for_all(f"{first} alone", edge, exit_ms(self.timed.tiers, there)[0], 0.0),
            Option.same_for_all(f"full model at the {last}", right, sent_ms, full.bytes_up),
            Option.same_for_all(f"full model at the {first}", right, full.compute_ms * there.slower[0], 0.0),
        ]

    def payoff(self) -> str:
        """The options side by side, each held against the cascade, and a verdict; for a terminal."""
        cascade, others = self.cascade(), self.alternatives()
        header = ("", "right", "ms", "bytes up", "ms a right answer", "bytes a right answer")
        table = text_table(header, [option_cells(option) for option in (cascade, *others)])
        found = [Comparison.of(option, cascade) for option in others]
        said = [each.sentence for each in found]
        said += [self._break_even(cascade, others[1]), verdict(found)]
        return "\n\n".join([self._where(), table, "\n".join(said)])

    def _where(self) -> str:
        here = ", ".join(f"{tier.name} {tier.compute_ms:.3g} ms" for tier in (*self.timed.tiers, self.timed.full))
        slower = "as fast as this one" if set(self.site.slower) == {1.0} else f"{_list(self.site.slower)} times slower"
        return (
            f"does it pay? Uplink {_list(self.site.uplink_mbit)} Mbit/s, round trip {_list(self.site.rtt_ms)} ms, "
            f"computers {slower}\none sample at a time here, {self.fmt}: {here}\n"
            f"'as right': no difference to be seen on {len(self.outputs):,} samples"
        )

    def _break_even(self, cascade: Option, full: Option) -> str:
        fast = at_infinite_rate(self.site)
        cascade_fast, full_fast = self.cascade(fast).mean_ms, self.alternatives(fast)[1].mean_ms
        factor = break_even(cascade.mean_ms, cascade_fast, full.mean_ms, full_fast)
        if factor is None:
            return f"no faster uplink makes the {full.name} as quick as the cascade"
        if factor == 0.0:
            return f"the {full.name} is quicker than the cascade on any uplink"
        return f"the {full.name} is as quick as the cascade from {factor:.3g} times these uplinks on"

    def costs(self) -> dict[Unit, tuple[float, ...]]:
        """Of a sample by the exit at which it leaves."""
        return {
            "FLOPs": exit_costs(self.spec, "flops"),
            "ms": exit_ms(self.timed.tiers, self.site),
            "bytes": exit_bytes(self.timed.tiers),
        }

    def sweep(self, unit: Unit) -> list[SweepRow]:
        """The thresholds that no others beat in accuracy and this cost on these samples, cheapest first.

        Args:
            unit: of the cost.

        Returns:
            At most `MOST_ROWS`.
        """
        vectors = frontier(self.outputs, "error", self.costs()[unit])[::-1]
        kept = np.unique(np.linspace(0, len(vectors) - 1, min(MOST_ROWS, len(vectors))).astype(int))
        return [self._row(vectors[place]) for place in kept]

    def _row(self, vector: Thresholds) -> SweepRow:
        leaving = self.outputs.leaving(vector)
        right = self.outputs.predictions[leaving, np.arange(len(leaving))] == self.outputs.labels
        shares = np.bincount(leaving, minlength=len(self.outputs.names)) / len(leaving)
        means = {unit: float(np.take(costs, leaving).mean()) for unit, costs in self.costs().items()}
        return SweepRow(vector, int(right.sum()), len(right), tuple(shares.tolist()), means)

    def write(self, out: Path) -> list[Path]:
        """Write everything as CSVs and PNGs into a directory.

        Args:
            out: from `prepare_folder`.

        Returns:
            The files.

        Raises:
            BranchyError: the disk is full, or the like.
        """
        views, sweeps = self.views(), {unit: self.sweep(unit) for unit in self.costs()}
        files = {
            **exit_files(views, self.spec.labels),
            "sweep.csv": csv_bytes(self._sweep_header(), sweep_rows(sweeps)),
            "options.csv": csv_bytes(OPTIONS, map(option_row, (self.cascade(), *self.alternatives()))),
            "reliability.png": png(reliability_plot(views)),
            "pareto.png": png(pareto_plot([self._curve(unit, rows) for unit, rows in sweeps.items()])),
        }
        return write_files(out, files)

    def _sweep_header(self) -> tuple[str, ...]:
        early = self.outputs.names[:-1]
        return (
            *("cheapest_in", *(f"threshold_{name}" for name in early), "accuracy", "accuracy_low", "accuracy_high"),
            *(f"share_{name}" for name in self.outputs.names),
            *("flops", "ms", "bytes", "flops_per_right", "ms_per_right", "bytes_per_right"),
        )

    def _curve(self, unit: Unit, rows: Sequence[SweepRow]) -> Curve:
        own, costs = self._row(self.thresholds), self.costs()[unit]
        edge = float((self.outputs.predictions[0] == self.outputs.labels).mean())
        full = float((self.outputs.full == self.outputs.labels).mean())
        sent, spot = self.alternatives()[1:]
        points = {"cascade, its thresholds": (own.means[unit], own.right / own.samples)}
        points[f"{self.outputs.names[0]} alone"] = (costs[0], edge)
        for option in (sent, spot):
            cost = {"FLOPs": float(self.spec.full.flops), "ms": option.mean_ms, "bytes": option.mean_bytes}[unit]
            points[option.name] = (cost, full)
        return Curve(unit, [row.means[unit] for row in rows], [row.right / row.samples for row in rows], points)

    def text(self) -> str:
        """Short, for a terminal."""
        about = (
            "ECE: expected calibration error in 15 bins of equal mass, before and after the temperature T; a perfectly "
            "calibrated exit\nstays below the last column in 95 % of test sets of this size"
        )
        parts = [calibration_table(self.views()), about, *self._notes()]
        if len(self.timed.tiers) > 1:
            parts.append(self.payoff())
        return "\n\n".join(parts)

    def _notes(self) -> Iterator[str]:
        missing = np.setdiff1d(np.arange(len(self.spec.labels)), self.outputs.labels)
        if missing.size:
            names = listed([self.spec.labels[index] for index in missing])
            yield f"no test samples of {missing.size} of {len(self.spec.labels)} classes; nothing is known of: {names}"
        if len(self.outputs) < FEW:
            yield f"only {len(self.outputs)} test samples: what is said of calibration is rough"


def prepare_folder(out: Path) -> None:
    """Check before the work that an analysis can be written.

    Args:
        out: the directory, made if need be.

    Raises:
        UsageError: the directory cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise MissingExtraError("branchy evaluate --out", "train")
    make_folder(out, "an evaluation")


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in (values if len(set(values)) > 1 else values[:1]))
