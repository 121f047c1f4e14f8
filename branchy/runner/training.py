"""Training as one job: data, model, exits, formats, bundle.

What can go wrong before the work is checked before it, and nothing half-written is left behind.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from branchy import __version__
from branchy.core import wire
from branchy.core.cascade import (
    FULL,
    Array,
    CascadeSpec,
    DType,
    ExitSettings,
    FormatName,
    PolicyName,
    StageFile,
    StageSpec,
    Uplink,
)
from branchy.datasets import Dataset, Part, load, stratified
from branchy.engines import open_engine
from branchy.errors import UsageError
from branchy.reports import history as reports
from branchy.runner.calibration import (
    GOLDEN_SAMPLES,
    Run,
    Step,
    Thresholds,
    calibrate,
    check_format,
    walk,
)
from branchy.store.bundle import Bundle
from branchy.store.manifest import Split, TrainingInfo
from branchy.store.writer import check_target, write_bundle

if TYPE_CHECKING:
    from branchy.models.splitting import Network, StageModel
    from branchy.models.training import History

log = logging.getLogger(__name__)

HELD_OUT = {"early-stop": 0.25, "temperature": 0.25, "tune": 0.5}
"""How the validation split is divided."""

FEW = 50
"""Fewer samples than this in a held-out part make what is fitted on it rough."""

CHECKED_SAMPLES = 64
"""Validation samples that each exported format is held against Keras with."""


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What to train and how.

    Attributes:
        dataset: a folder, an `.npz` or a name.
        out: the bundle's directory; None is `saved_models/NAME`.
        name: the cascade's, in its topics; None takes the data set's.
        arch: an architecture of the zoo, or `path/to/file.py:function`.
        tiers: the stages' names; None leaves the architecture's.
        height: of a sample, with
        width: its width; None leaves them, or 180 x 180 for a folder.
        batch_size: samples a training step.
        epochs: most passes over the training part.
        learning_rate: of Adam.
        seed: of the weights, the order of the samples and the split.
        validation_split: share of the non-test samples that is kept for early stopping, temperature and tuning.
        exit_weights: of each exit's loss; None weighs all alike.
        policy: how exits decide.
        thresholds: for every exit or by stage; None is 0.8, not to be given with
        target_share: per cent of the answers that shall leave at each exit.
        uplink_dtype: what activations travel in.
        overwrite: whether a bundle that is there already is replaced.
        command: the command line, for the manifest.
    """

    dataset: str
    out: Path | None = None
    name: str | None = None
    arch: str = "b-lenet"
    tiers: tuple[str, ...] | None = None
    height: int | None = None
    width: int | None = None
    batch_size: int = 32
    epochs: int = 25
    learning_rate: float = 0.002
    seed: int = 0
    validation_split: float = 0.2
    exit_weights: tuple[float, ...] | None = None
    policy: PolicyName = "max_prob"
    thresholds: Mapping[str, float] | float | None = None
    target_share: tuple[float, ...] | None = None
    uplink_dtype: DType = "float16"
    overwrite: bool = False
    command: str = "branchy train"


@dataclass(frozen=True, slots=True)
class StageSummary:
    """One stage in numbers: its spec, its exit in LiteRT, the share that leaves there, and its cut's body size."""

    spec: StageSpec
    exit: ExitSettings | None
    share: float | None
    body_bytes: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What a training gave.

    Attributes:
        bundle: as written.
        stages: the stages in order, then the full model.
        sample_bytes: size of a raw sample's message body.
        parts: number of samples in each part of the data.
        epochs: how many were run.
        skipped: files that could not be read.
    """

    bundle: Bundle
    stages: tuple[StageSummary, ...]
    sample_bytes: int
    parts: Mapping[str, int]
    epochs: int
    skipped: tuple[str, ...]


def train(options: TrainOptions) -> Summary:
    """Train a model with exits, cut it, calibrate it, export it, and write its bundle.

    Raises:
        UsageError: an option, the architecture or the data set's layout is wrong.
        DatasetError: the data set cannot be read or has too few samples.
        TrainingError: the loss diverged, or a format does not do what Keras does.
        MissingExtraError: TensorFlow or Pillow is not installed.
    """
    _check(options)
    name = options.name or _name_of(options.dataset)
    out = options.out or Path("saved_models") / name
    check_target(out, overwrite=options.overwrite)
    import branchy.models.backend  # noqa: F401  (says at once when TensorFlow is not installed)

    data = load(options.dataset, size=_size(options))
    parts = _divide(data, options)
    network = _build(data, options)
    wanted = _thresholds(options, network, len(data.labels))
    history = _fit(network, data, parts, options)
    job = _Job(name, data, parts, network, wanted, history)
    bundle = write_bundle(
        out,
        job.fill,
        training=TrainingInfo(options.command, options.seed, data.name, __version__),
        splits={part_name: Split.of(part.indices) for part_name, part in parts.items()},
        golden=job.golden(),
        overwrite=options.overwrite,
    )
    return job.summary(bundle)


# --- before the work -------------------------------------------------------------------------------------------------


def _check(options: TrainOptions) -> None:
    rules: list[tuple[str, object, str, bool]] = [
        ("--batch-size", options.batch_size, "at least 1", options.batch_size >= 1),
        ("--epochs", options.epochs, "at least 1", options.epochs >= 1),
        ("--learning-rate", options.learning_rate, "above 0", 0 < options.learning_rate < math.inf),
        ("--seed", options.seed, "in 0..4294967295", 0 <= options.seed < 2**32),
        ("--validation-split", options.validation_split, "between 0 and 1", 0 < options.validation_split < 1),
    ]
    for flag, value, rule, holds in rules:
        if not holds:
            raise UsageError(f"{flag} must be {rule}, got {value}")
    if (options.height is None) != (options.width is None):
        raise UsageError("--height and --width must be given together")
    if options.target_share is not None and options.thresholds is not None:
        raise UsageError("--threshold and --target-share exclude each other: give one of them")
    if options.name is not None and options.name != _plain(options.name):
        raise UsageError(f"--name must be at most 80 letters, digits, '.', '_' and '-', got {options.name!r}")
    for flag, weights in (("--exit-weights", options.exit_weights), ("--target-share", options.target_share)):
        if weights is not None and not (all(0 <= w < math.inf for w in weights) and sum(weights) > 0):
            raise UsageError(f"{flag} must be numbers at or above 0, not all 0, got {_list(weights)}")
    if options.target_share is not None and not math.isclose(sum(options.target_share), 100, abs_tol=0.01):
        raise UsageError(
            f"--target-share must sum to 100 per cent, got {_list(options.target_share)}, "
            f"which sums to {sum(options.target_share):g}"
        )


def _name_of(dataset: str) -> str:
    return _plain(Path(dataset).resolve().stem) or "cascade"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:80].strip(".")


def _size(options: TrainOptions) -> tuple[int, int] | None:
    if options.height is None or options.width is None:
        return None
    return options.height, options.width


def _list(values: tuple[float, ...]) -> str:
    return ",".join(f"{v:g}" for v in values)


# --- data and model --------------------------------------------------------------------------------------------------


def _divide(data: Dataset, options: TrainOptions) -> dict[str, Part]:
    """Disjoint parts by name, stratified: train, early-stop, temperature, tune and test."""
    shares = (1 - options.validation_split, *(options.validation_split * share for share in HELD_OUT.values()))
    positions = stratified(data.pool.labels, shares, options.seed)
    parts = {name: data.pool.take(p) for name, p in zip(("train", *HELD_OUT), positions, strict=True)}
    for name, part in parts.items():
        if len(part) == 0:
            raise UsageError(
                f"data set {data.name}: too few samples ({len(data.pool)} besides the test part): none is left for "
                f"{name}; add samples or change --validation-split ({options.validation_split:g})"
            )
    for label in np.setdiff1d(np.arange(len(data.labels)), parts["train"].labels):
        raise UsageError(f"data set {data.name}: class '{data.labels[label]}' has no sample to train on; add some")
    for name in ("temperature", "tune"):
        if len(parts[name]) < FEW:
            log.warning("only %d samples for %s: what is fitted on them is rough", len(parts[name]), name)
    return {**parts, "test": data.test}


def _build(data: Dataset, options: TrainOptions) -> Network:
    from branchy.models import branching, splitting, training, zoo

    if options.tiers is not None:
        branching.check_names(options.tiers)
    training.make_deterministic(options.seed)
    built = branching.build(zoo.find(options.arch), data.input.tensor.shape, len(data.labels), options.tiers)
    return splitting.split(built, data.input, Uplink("activation", options.uplink_dtype))


def _thresholds(options: TrainOptions, network: Network, classes: int) -> Thresholds:
    """What was asked of the exits, checked against the exits that there are."""
    exits = [s.spec.name for s in network.stages if s.spec.logits is not None]
    for flag, values in (("--exit-weights", options.exit_weights), ("--target-share", options.target_share)):
        if values is not None and len(values) != len(exits):
            raise UsageError(f"{flag} needs a number for each exit ({', '.join(exits)}), got {_list(values)}")
    given = ExitSettings().threshold if options.thresholds is None else options.thresholds
    if not isinstance(given, float):
        wrong = [name for name in given if name not in exits[:-1]]
        if wrong:
            raise UsageError(
                f"--threshold: '{wrong[0]}' decides nothing; expected {', '.join(exits[:-1]) or 'none'} "
                f"({exits[-1]} is last and always answers)"
            )
        given = {name: given.get(name, ExitSettings().threshold) for name in exits[:-1]}
    if options.target_share is not None:
        return Thresholds(options.policy, given, tuple(share / 100 for share in options.target_share))
    for threshold in [given] if isinstance(given, float) else given.values():
        ExitSettings(options.policy, threshold).check(classes)
    return Thresholds(options.policy, given)


def _fit(network: Network, data: Dataset, parts: Mapping[str, Part], options: TrainOptions) -> History:
    from branchy.models.training import Fit, fit

    exits = [s.spec.name for s in network.stages if s.spec.logits is not None]
    weights = options.exit_weights or (1.0,) * len(exits)
    log.info(
        "training %s on %s: %s",
        options.arch,
        data.name,
        ", ".join(f"{len(part)} {name}" for name, part in parts.items()),
    )
    how = Fit(
        exit_weights=dict(zip(exits, weights, strict=True)),
        batch_size=options.batch_size,
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        seed=options.seed,
    )
    return fit(network.trained, data.input.tensor, parts["train"], parts["early-stop"], how)


# --- formats, exits, bundle ------------------------------------------------------------------------------------------


@dataclass
class _Measured:
    """The exits in one format: their settings and the shares that leave there, the full model's among them."""

    exits: dict[str, ExitSettings]
    shares: dict[str, float]


class _Job:
    """What is done with a trained network, from its files to its summary."""

    def __init__(
        self,
        name: str,
        data: Dataset,
        parts: Mapping[str, Part],
        network: Network,
        wanted: Thresholds,
        history: History,
    ) -> None:
        self._name, self._data, self._parts = name, data, parts
        self._network, self._wanted, self._history = network, wanted, history
        self._models: dict[str, StageModel] = {s.spec.name: s for s in (*network.stages, network.full)}
        self._stages = [s.spec for s in network.stages]
        tune = parts["tune"]
        samples, _ = tune.read(np.arange(min(CHECKED_SAMPLES, len(tune))))
        keras = self._keras()
        self._steps: list[Step] = [*walk(self._stages, keras, samples), *walk([network.full.spec], keras, samples)]
        self._sample_bytes = len(wire.encode_tensors({"sample": samples[0]}))
        self._measured: dict[FormatName, _Measured] = {}

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
        """Write every file of the bundle; returns what the manifest says of the cascade."""
        from branchy.models.export import write_keras, write_litert

        reports.write_csv(folder / "history.csv", self._history)
        reports.plot(folder, self._history, self._exit_names())
        for stage, model in self._models.items():
            log.info("exporting %s", stage)
            write_keras(model.model, folder / _file(stage, "keras"))
            write_litert(model.model, model.spec.input, folder / _file(stage, "litert"))
        with ExitStack() as stack:
            litert: dict[str, Run] = {}
            for stage, model in self._models.items():
                engine = open_engine(model.spec, folder / _file(stage, "litert"), "litert")
                stack.callback(engine.close)
                litert[stage] = engine.run
            for step in self._steps:
                check_format(step.stage, litert[step.stage.name], step.inputs, step.outputs, "litert")
            self._measure("litert", litert)
        self._measure("keras", self._keras())
        return CascadeSpec(
            name=self._name,
            labels=self._data.labels,
            input=self._data.input,
            stages=tuple(self._with_files(spec) for spec in self._stages),
            full=self._with_files(self._network.full.spec),
        )

    def summary(self, bundle: Bundle) -> Summary:
        """The written bundle in numbers."""
        measured = self._measured["litert"]
        stages = tuple(
            StageSummary(
                bundle.spec.stage(step.stage.name),
                measured.exits.get(step.stage.name),
                measured.shares.get(step.stage.name),
                step.body_bytes,
            )
            for step in self._steps
        )
        return Summary(
            bundle,
            stages,
            self._sample_bytes,
            {name: len(part) for name, part in self._parts.items()},
            len(self._history["loss"]),
            self._data.skipped,
        )

    def _exit_names(self) -> list[str]:
        return [spec.name for spec in self._stages if spec.logits is not None]

    def _keras(self) -> dict[str, Run]:
        from branchy.models.splitting import runner

        return {name: runner(model) for name, model in self._models.items()}

    def _measure(self, fmt: FormatName, runs: Mapping[str, Run]) -> None:
        temperature, tune = self._parts["temperature"], self._parts["tune"]
        measured = _Measured(*calibrate(self._stages, runs, temperature, tune, self._wanted, f"exits in {fmt}"))
        alone = replace(self._wanted, shares=None)
        exits, shares = calibrate([self._network.full.spec], runs, temperature, tune, alone, f"the full model in {fmt}")
        self._measured[fmt] = _Measured({**measured.exits, **exits}, {**measured.shares, **shares})

    def _with_files(self, spec: StageSpec) -> StageSpec:
        """The spec with its formats; sizes and digests are measured where they are written."""
        files: dict[FormatName, StageFile] = {
            fmt: StageFile(_file(spec.name, fmt), "", 0, measured.exits.get(spec.name))
            for fmt, measured in self._measured.items()
        }
        return replace(spec, files=files)


def _file(stage: str, fmt: FormatName) -> str:
    return f"{'model' if stage == FULL else stage}.{'keras' if fmt == 'keras' else 'tflite'}"


def summary_lines(summary: Summary) -> list[str]:
    """A training's summary for people: what each stage is and costs, and where the bundle lies."""
    head = ["stage", "parameters", "MFLOPs", "accuracy", "T", "threshold", "leave here", "bytes up"]
    rows = [head] + [_row(stage) for stage in summary.stages]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    measured = next(s.exit.samples for s in summary.stages if s.exit is not None)
    lines.append(
        f"a raw sample's message body has {summary.sample_bytes} bytes; accuracy on {measured} held-out samples"
    )
    if summary.skipped:
        lines.append(f"{len(summary.skipped)} files could not be read and were skipped")
    return [*lines, f"bundle {summary.bundle.path} ({summary.bundle.digest[:12]})"]


def _row(stage: StageSummary) -> list[str]:
    found, last = stage.exit, stage.spec.activation is None
    return [
        stage.spec.name,
        f"{stage.spec.parameters:,}",
        f"{stage.spec.flops / 1e6:.3f}",
        f"{found.accuracy:.1%}" if found and found.accuracy is not None else "-",
        f"{found.temperature:.2f}" if found else "-",
        f"{found.threshold:.3f}" if found and not last else "-",
        f"{stage.share:.1%}" if stage.share is not None else "-",
        "-" if last else str(stage.body_bytes),
    ]
