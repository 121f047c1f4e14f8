"""From a trained network to a bundle: files in every format, exits measured in each, golden inputs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from branchy.core.cascade import Array, CascadeSpec, FormatName, StageFile, StageSpec
from branchy.datasets import Dataset, Part
from branchy.reports import history as reports
from branchy.runner.calibration import Calibrated, Run, Step, Thresholds, calibrate, check_format, walk
from branchy.runner.exporting import Exported, Exporter
from branchy.runner.format_choice import TOLERANCE, time_in_turn
from branchy.runner.request_sizes import body_bytes, request_sizes
from branchy.runner.training_summary import StageSummary, Summary
from branchy.store.bundle import Bundle

if TYPE_CHECKING:
    from branchy.models.splitting import Network, StageModel
    from branchy.models.training import History

log = logging.getLogger(__name__)

CHECKED_SAMPLES = 64
"""Validation samples that each exported format is held against Keras with."""

GOLDEN_SAMPLES = 4
"""Inputs of each stage that the bundle keeps with the logits they give."""


class Packer:
    """What is done with a trained network, from its files to its summary.

    Keras in memory is the reference: what its outputs are for some validation samples is kept
    as golden, and every other format is held against it.
    """

    def __init__(
        self,
        name: str,
        data: Dataset,
        parts: Mapping[str, Part],
        network: Network,
        wanted: Thresholds,
        history: History,
        formats: Sequence[FormatName] = ("litert", "keras"),
    ) -> None:
        self._name, self._data, self._parts = name, data, parts
        self._network, self._wanted, self._history = network, wanted, history
        self._models: dict[str, StageModel] = {s.spec.name: s for s in (*network.stages, network.full)}
        self._stages = [s.spec for s in network.stages]
        tune = parts["tune"]
        samples, _ = tune.read(np.arange(min(CHECKED_SAMPLES, len(tune))))
        keras = self._keras()
        self._steps: list[Step] = [*walk(self._stages, keras, samples), *walk([network.full.spec], keras, samples)]
        self._requests = request_sizes(data.input, self._stages, samples)
        self._formats = formats
        self._exported: dict[FormatName, Exported] = {}
        self._measured: dict[FormatName, Calibrated] = {}
        self._compute_ms: dict[tuple[str, FormatName], float] = {}
        self._logits_off: dict[tuple[str, FormatName], float] = {}
        self._warn_of_large_cuts()

    def golden(self) -> dict[str, tuple[Array, Array]]:
        """For each stage with an exit, inputs as they arrive there and the logits that Keras gives."""
        return {
            step.stage.name: (
                step.inputs[:GOLDEN_SAMPLES],
                np.asarray(step.outputs[step.stage.logits.name], np.float32)[:GOLDEN_SAMPLES],
            )
            for step in self._steps
            if step.stage.logits is not None
        }

    def fill(self, folder: Path) -> CascadeSpec:
        """Write every file of the bundle but golden inputs and manifest.

        Args:
            folder: there already, and empty.

        Returns:
            What the manifest says of the cascade, but for the files' sizes and digests, which are 0 and empty.

        Raises:
            TrainingError: a format gives other outputs than Keras, or a stage of one's own layers is not LiteRT's.
            OSError: the disk is full or the like.
        """
        from branchy.models.backend import quiet

        reports.write_csv(folder / "history.csv", self._history)
        reports.plot(folder, self._history, [spec.name for spec in self._stages if spec.logits is not None])
        with ExitStack() as stack, tqdm(self._formats, desc="exporting", unit="format", leave=False) as formats:
            exporter = Exporter(self._network, self._parts["train"], folder, stack)
            for fmt in formats:
                with quiet():  # LiteRT tells of its delegate at the first run
                    self._exported[fmt] = exporter.export(fmt)
                    self._check(fmt)
                self._measure(fmt, self._exported[fmt].runs)
            self._time()
        if "keras" not in self._measured:
            self._measure("keras", self._keras())
        self._warn_of_lost_accuracy()
        return CascadeSpec(
            name=self._name,
            labels=self._data.labels,
            input=self._data.input,
            stages=tuple(self._with_files(spec) for spec in self._stages),
            full=self._with_files(self._network.full.spec),
        )

    def summary(self, bundle: Bundle) -> Summary:
        """The written bundle in numbers."""
        measured = self._measured[self._formats[0]]
        stages = tuple(
            StageSummary(
                bundle.spec.stage(step.stage.name),
                measured.exits.get(step.stage.name),
                measured.shares.get(step.stage.name),
                measured.calibration.get(step.stage.name),
            )
            for step in self._steps
        )
        return Summary(
            bundle,
            stages,
            self._requests,
            {name: len(part) for name, part in self._parts.items()},
            len(self._history["loss"]),
            self._data.skipped,
        )

    def _warn_of_large_cuts(self) -> None:
        sample_bytes = body_bytes(self._data.input.tensor, None)
        for cut, step in enumerate(self._steps):
            if step.body_bytes > sample_bytes:
                log.warning(
                    "%s sends up %d bytes a request, more than the raw sample's %d: this cut saves no bytes; %s",
                    step.stage.name,
                    step.body_bytes,
                    sample_bytes,
                    _instead(self._stages, cut),
                )

    def _check(self, fmt: FormatName) -> None:
        for step in self._steps:
            run = self._exported[fmt].runs[step.stage.name]
            self._logits_off[step.stage.name, fmt] = check_format(step.stage, run, step.inputs, step.outputs, fmt)

    def _time(self) -> None:
        for step in self._steps:
            name, one = step.stage.name, step.inputs[:1]
            runs = {fmt: partial(each.runs[name], one) for fmt, each in self._exported.items()}
            self._compute_ms.update({(name, fmt): took for fmt, took in time_in_turn(runs).items()})

    def _warn_of_lost_accuracy(self) -> None:
        for fmt in self._formats:
            for name, settings in self._measured[fmt].exits.items():
                lost = (self._measured["keras"].exits[name].accuracy or 0.0) - (settings.accuracy or 0.0)
                if lost > TOLERANCE:
                    log.warning("%s is %.1f points less accurate in %s than in Keras", name, 100 * lost, fmt)

    def _keras(self) -> dict[str, Run]:
        from branchy.models.splitting import runner

        return {name: runner(model) for name, model in self._models.items()}

    def _measure(self, fmt: FormatName, runs: Mapping[str, Run]) -> None:
        temperature, tune = self._parts["temperature"], self._parts["tune"]
        found = calibrate(self._stages, runs, temperature, tune, self._wanted, f"exits in {fmt}")
        alone = replace(self._wanted, shares=None)
        full = calibrate([self._network.full.spec], runs, temperature, tune, alone, f"the full model in {fmt}")
        self._measured[fmt] = Calibrated(
            found.exits | full.exits, found.shares | full.shares, found.calibration | full.calibration
        )

    def _with_files(self, spec: StageSpec) -> StageSpec:
        """The spec with its formats; sizes and digests are measured where they are written."""
        files: dict[FormatName, StageFile] = {
            fmt: StageFile(
                exported.files[spec.name],
                "",
                0,
                self._measured[fmt].exits.get(spec.name),
                round(self._compute_ms[spec.name, fmt], 4),
                self._logits_off[spec.name, fmt],
            )
            for fmt, exported in self._exported.items()
        }
        return replace(spec, files=files)


def _instead(stages: Sequence[StageSpec], cut: int) -> str:
    """What to do where a cut sends more than the sample: cuts that send the sample come first, after exits."""
    if any(stage.logits is None for stage in stages[: cut + 1]):
        return "choose another place to cut, or --uplink bottleneck"
    kinds = [stage.uplink.kind for stage in stages[cut + 1 :] if stage.uplink is not None]
    return f"--uplink {','.join(['sample'] * (cut + 1) + list(kinds))} would send the sample"
