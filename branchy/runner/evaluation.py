"""How right, how fast and how costly a bundle is on a test set, without a broker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from branchy.core.cascade import FULL, ExitSettings, FormatName, PolicyName
from branchy.core.messages import Answer
from branchy.core.statistics import wilson
from branchy.datasets import Dataset, Part
from branchy.reports.csv import CsvReport, Row
from branchy.reports.text import text_table
from branchy.runner.cascade import BATCH, Cascade
from branchy.runner.held_out import check_fits
from branchy.store.bundle import Bundle

__all__ = ["Cascade", "Evaluation", "ExitTally", "evaluate"]


@dataclass(slots=True)
class ExitTally:
    """The samples that left at one exit.

    Attributes:
        exit: the stage.
        settings: the exit's policy, threshold and temperature.
        flops: floating point operations that a sample has cost when it leaves here.
        left: how many left.
        correct: how many of them with the right class.
        total_ms: computing and codec of all of them.
        bytes_up: headers and bodies sent up for all of them.
    """

    exit: str
    settings: ExitSettings
    flops: int
    left: int = 0
    correct: int = 0
    total_ms: float = 0.0
    bytes_up: int = 0

    def count(self, answer: Answer, expected: int, sent_bytes: int = 0) -> None:
        """Add a sample that left here.

        Args:
            answer: with a label.
            expected: the true class index.
            sent_bytes: what the device itself sent over the uplink for it, headers and body.
        """
        self.left += 1
        self.correct += answer.index == expected
        self.total_ms += answer.hops[0].total_ms
        self.bytes_up += sent_bytes + sum(hop.bytes_up for hop in answer.hops)


@dataclass(frozen=True)
class Evaluation:
    """What was measured: one tally an exit, in order, under a heading for people."""

    heading: str
    exits: tuple[ExitTally, ...]

    @property
    def samples(self) -> int:
        """How many samples were answered."""
        return sum(tally.left for tally in self.exits)

    @property
    def correct(self) -> int:
        """How many of them with the right class."""
        return sum(tally.correct for tally in self.exits)

    @property
    def accuracy(self) -> float:
        """Share of the samples that got the right class; 0 where there were none."""
        return self.correct / max(1, self.samples)

    @property
    def mean_ms(self) -> float:
        """Mean computing and codec time of a sample."""
        return sum(tally.total_ms for tally in self.exits) / max(1, self.samples)

    @property
    def mean_flops(self) -> float:
        """Mean floating point operations of a sample."""
        return sum(tally.flops * tally.left for tally in self.exits) / max(1, self.samples)

    @property
    def mean_bytes_up(self) -> float:
        """Mean bytes sent up for a sample, over all cuts."""
        return sum(tally.bytes_up for tally in self.exits) / max(1, self.samples)

    def table(self) -> str:
        """A line an exit and one for all, for a terminal."""
        header = ("exit", "leaves at", "left", "share", "right", "95 % interval", "ms", "FLOPs", "bytes up")
        rows = [
            self._line(
                t.exit,
                "always" if t is self.exits[-1] else t.settings.rule,
                t.left,
                t.correct,
                t.total_ms,
                t.flops * t.left,
                t.bytes_up,
            )
            for t in self.exits
        ]
        total_ms, flops, bytes_up = (
            mean * self.samples for mean in (self.mean_ms, self.mean_flops, self.mean_bytes_up)
        )
        rows.append(self._line("all", "", self.samples, self.correct, total_ms, flops, bytes_up))
        return f"{self.heading}\n\n{text_table(header, rows, left=2)}"

    def _line(
        self, name: str, rule: str, left: int, correct: int, total_ms: float, flops: float, bytes_up: float
    ) -> tuple[str, ...]:
        share = f"{left / max(1, self.samples):.1%}"
        if not left:
            return (name, rule, "0", share, *"-----")
        low, high = wilson(correct, left)
        means = (f"{total_ms / left:.3f}", f"{flops / left:,.0f}", f"{bytes_up / left:,.0f}")
        return (name, rule, f"{left}", share, f"{correct / left:.1%}", f"{low:.1%} to {high:.1%}", *means)


def evaluate(
    bundle: Bundle,
    dataset: Dataset,
    *,
    fmt: FormatName = "litert",
    threads: int = 1,
    stage: str | None = None,
    policy: PolicyName | None = None,
    thresholds: Mapping[str, float] | float | None = None,
    batch_size: int = BATCH,
    csv: Path | None = None,
) -> Evaluation:
    """Run the test part of a data set through a bundle.

    Args:
        bundle: a loaded bundle.
        dataset: with the bundle's labels and input.
        fmt: which of the bundle's formats is run.
        threads: how many threads one batch may use.
        stage: None for the whole cascade; see `Cascade`.
        policy: instead of the bundle's.
        thresholds: instead of the bundle's.
        batch_size: most samples computed at once; times are a sample's share of its batch.
        csv: where to write a row a sample, if anywhere.

    Raises:
        DatasetUsageError: the data set is not of the kind that the bundle was trained on.
        UsageError: the CSV cannot be written, or see `Cascade`.
        DatasetError: a sample cannot be read.
    """
    check_fits(dataset, bundle.spec)
    heading = f"{dataset.name}, {len(dataset.test)} test samples, {fmt}, bundle {bundle.spec.name} {bundle.digest[:12]}"
    with ExitStack() as stack:
        cascade = Cascade(bundle, fmt, threads, stage=stage, policy=policy, thresholds=thresholds)
        stack.callback(cascade.close)
        report = stack.enter_context(CsvReport(csv, cascade.tiers)) if csv else None
        tallies = _tallies(cascade)
        has_certificate = bundle.manifest.certificate is not None and cascade.leaves_early
        for row, answer, sent_bytes in _answers(cascade, dataset.test, batch_size):
            expected = int(dataset.test.labels[row])
            tallies[answer.exit or ""].count(answer, expected, sent_bytes)
            if report is not None:
                report.write(
                    Row.from_answer(
                        row,
                        expected,
                        answer.hops[0].total_ms / 1e3,
                        answer,
                        answer.request,
                        uplink_bytes=sent_bytes,
                        has_certificate=has_certificate,
                    )
                )
    return Evaluation(heading, tuple(tallies.values()))


def _answers(cascade: Cascade, test: Part, batch_size: int) -> Iterator[tuple[int, Answer, int]]:
    """Each test sample's position, its answer, and what the device itself sent over the uplink for it.

    The full model has no tier before it, so the whole sample crosses the uplink.
    """
    first, _ = test.read(np.arange(min(batch_size, len(test))))
    sent_bytes = cascade.request_bytes(first[0]) if cascade.stages[0].name == FULL else 0
    cascade.predict(first, batch_size)  # what an engine makes on first use is no part of the times
    with tqdm(total=len(test), desc="evaluate", unit="sample", leave=False) as bar:
        row = 0
        for samples, _ in test.batches(batch_size):
            for answer in cascade.predict(samples, batch_size):
                yield row, answer, sent_bytes
                row += 1
            bar.update(len(samples))


def _tallies(cascade: Cascade) -> dict[str, ExitTally]:
    """A tally for each exit at which a sample may leave."""
    tallies, flops = {}, 0
    for stage in cascade.stages:
        flops += stage.flops
        settings = cascade.exits.get(stage.name)
        if settings is not None and (cascade.leaves_early or stage is cascade.stages[-1]):
            tallies[stage.name] = ExitTally(stage.name, settings, flops)
    return tallies
