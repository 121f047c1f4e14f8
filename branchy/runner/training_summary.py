"""What a training gave, in numbers and in a few lines for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from branchy.core.cascade import ExitSettings, StageSpec
from branchy.core.reliability import Calibration
from branchy.reports.text import text_table
from branchy.runner.inspection import ms_text, size_text
from branchy.runner.request_sizes import RequestSize, sizes_table
from branchy.store.bundle import Bundle


@dataclass(frozen=True, slots=True)
class StageSummary:
    """One stage in numbers.

    Attributes:
        spec: the stage.
        exit: its exit in the first of the formats.
        share: of the samples, that leaves there.
        calibration: of its confidences before and after the temperature.
    """

    spec: StageSpec
    exit: ExitSettings | None
    share: float | None
    calibration: tuple[Calibration, Calibration] | None


@dataclass(frozen=True, slots=True)
class Summary:
    """What a training gave.

    Attributes:
        bundle: as written.
        stages: the stages in order, then the full model.
        requests: bytes of what each cut sends, beside the sample.
        parts: number of samples in each part of the data.
        epochs: how many were run.
        skipped: files that could not be read.
        over_budget: a line for each bottleneck that loses more than it was to.
    """

    bundle: Bundle
    stages: tuple[StageSummary, ...]
    requests: tuple[RequestSize, ...]
    parts: Mapping[str, int]
    epochs: int
    skipped: tuple[str, ...]
    over_budget: tuple[str, ...] = ()


def summary_lines(summary: Summary) -> list[str]:
    """A training's summary for people: what each stage is and costs, and where the bundle lies."""
    head = ["stage", "parameters", "MFLOPs", "accuracy", "T", "ECE", "chance", "threshold", "leave here"]
    rows = [head] + [_row(stage) for stage in summary.stages]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    measured = next(s.exit.samples for s in summary.stages if s.exit is not None)
    lines += ["", *sizes_table(summary.requests).splitlines()]
    lines += ["", *_format_table(summary.stages).splitlines(), ""]
    lines.append(
        f"ECE before and after the temperature T, on {summary.parts['tune']} samples that T was not fitted on; up to "
        "'chance' it may be chance"
    )
    lines.append(f"accuracy on {measured} held-out samples")
    if summary.skipped:
        lines.append(f"{len(summary.skipped)} files could not be read and were skipped")
    lines += summary.over_budget
    return [*lines, f"bundle {summary.bundle.path} ({summary.bundle.digest[:12]})"]


def _format_table(stages: Sequence[StageSummary]) -> str:
    """A line for each stage and format: what it takes, and how right it is."""
    rows = []
    for stage in (each.spec for each in stages):
        for fmt, file in stage.files.items():
            accuracy = "-" if file.exit is None or file.exit.accuracy is None else f"{file.exit.accuracy:.1%}"
            rows.append((stage.name, fmt, file.path, size_text(file.size_bytes), ms_text(file.compute_ms), accuracy))
    return text_table(("stage", "format", "file", "size", "ms a sample", "accuracy"), rows, left=3)


def _row(stage: StageSummary) -> list[str]:
    found, last = stage.exit, stage.spec.activation is None
    return [
        stage.spec.name,
        f"{stage.spec.parameters:,}",
        f"{stage.spec.flops / 1e6:.3f}",
        f"{found.accuracy:.1%}" if found and found.accuracy is not None else "-",
        f"{found.temperature:.2f}" if found else "-",
        " -> ".join(f"{each.ece_mass:.1%}" for each in stage.calibration) if stage.calibration else "-",
        f"{stage.calibration[1].chance:.1%}" if stage.calibration else "-",
        f"{found.threshold:.3f}" if found and not last else "-",
        f"{stage.share:.1%}" if stage.share is not None else "-",
    ]
