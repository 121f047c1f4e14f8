"""Training as one job: data, model, exits, formats, bundle.

What can go wrong before the work is checked before it, and nothing half-written is left behind.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from branchy import __version__
from branchy.core.cascade import DType, ExitSettings, FormatName, PolicyName
from branchy.datasets import Dataset, Part, load
from branchy.errors import UsageError
from branchy.models.wanted import Sends, Wanted
from branchy.reports.text import listed
from branchy.runner.architecture import as_it_came, build_network
from branchy.runner.calibration import Thresholds
from branchy.runner.fitting import computes_mixed, fit_network, remove_checkpoint
from branchy.runner.packing import Packer
from branchy.runner.parts import divide, splits
from branchy.runner.recipe import Recipe
from branchy.runner.training_summary import Summary
from branchy.runner.uplink_search import check_room, searched
from branchy.store.manifest import TrainingInfo
from branchy.store.writer import check_target, write_bundle

if TYPE_CHECKING:
    from branchy.models.splitting import Network

log = logging.getLogger(__name__)

FEW = 50
"""Fewer samples than this in a held-out part make what is fitted on it rough."""


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What to train and how.

    Attributes:
        dataset: a folder, an `.npz` or a name.
        out: the bundle's directory; None is `saved_models/NAME`.
        name: the cascade's, in its topics; None takes the data set's.
        arch: an architecture of the zoo, or the user's own (see `branchy.models.zoo.find`).
        wanted: how a plain Keras model gets its exits.
        tiers: the stages' names; None leaves the architecture's.
        height: of a sample, with
        width: its width; None leaves them, or 180 x 180 for a folder.
        batch_size: samples a training step.
        epochs: most passes over the training part.
        learning_rate: of Adam.
        seed: of the weights, the order of the samples and the split.
        validation_split: share of the non-test samples that is kept for early stopping, temperature and tuning.
        exit_weights: of each exit's loss; None weighs all alike.
        recipe: how the weights are found beyond that.
        policy: how exits decide.
        thresholds: for every exit or by stage; None is 0.8, not to be given with
        target_share: per cent of the answers that shall leave at each exit.
        uplink: what the cuts send, of `models.wanted.UPLINKS`: one for every cut or one a cut.
        uplink_dtype: what activations travel in.
        uplink_bytes: of the body that a bottleneck sends at most, see `models.wanted.Sends`.
        uplink_accuracy: points that a bottleneck may lose, see `models.wanted.Sends`.
        formats: that each stage is exported in; the first is what the summary is about.
        overwrite: whether a bundle that is there already is replaced.
        resume: whether to go on from the checkpoint of a training that was ended, where there is one.
        log_dir: where to write `history.csv` and TensorBoard's events after each epoch, if anywhere.
        command: the command line, for the manifest.
    """

    dataset: str
    out: Path | None = None
    name: str | None = None
    arch: str = "b-lenet"
    wanted: Wanted = field(default_factory=Wanted)
    tiers: tuple[str, ...] | None = None
    height: int | None = None
    width: int | None = None
    batch_size: int = 32
    epochs: int = 20
    learning_rate: float = 0.003
    seed: int = 0
    validation_split: float = 0.2
    exit_weights: tuple[float, ...] | None = None
    recipe: Recipe = field(default_factory=Recipe)
    policy: PolicyName = "max_prob"
    thresholds: Mapping[str, float] | float | None = None
    target_share: tuple[float, ...] | None = None
    uplink: tuple[str, ...] = ("activation",)
    uplink_dtype: DType = "float16"
    uplink_bytes: int | None = None
    uplink_accuracy: float = 1.0
    formats: tuple[FormatName, ...] = ("litert", "keras")
    overwrite: bool = False
    resume: bool = False
    log_dir: Path | None = None
    command: str = "branchy train"


def train(options: TrainOptions) -> Summary:
    """Train a model with exits, cut it, calibrate it, export it, and write its bundle.

    After each epoch there is a checkpoint beside the bundle's place (`fitting.checkpoint_path`); it is
    taken away once the bundle is written, and stays when the training ends before.

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

    computes_mixed(options.recipe)
    data = load(options.dataset, size=_size(options), one_hot=options.wanted.label_mode == "categorical")
    options.recipe.check_classes(data.labels)
    parts = _divide(data, options)
    network = _build(data, options)
    check_room(network, data.input, _sends(options))
    wanted = _thresholds(options, network, len(data.labels))
    if network.built.pretrained:
        log.info("the model as it came, without exits: %s", as_it_came(network, parts["temperature"], parts["tune"]))
    log.info(
        "training %s on %s: %s",
        options.arch,
        data.name,
        ", ".join(f"{len(part)} {part_name}" for part_name, part in parts.items()),
    )
    return fit_and_write(name, network, data, parts, options, wanted, out)


def fit_and_write(
    name: str,
    network: Network,
    data: Dataset,
    parts: Mapping[str, Part],
    options: TrainOptions,
    wanted: Thresholds,
    out: Path,
) -> Summary:
    """Train a network that is built, and write its bundle.

    Args:
        name: the cascade's.
        network: its weights are where training begins.
        data: what `parts` are of.
        parts: of the pool, see `divide`.
        options: how to train; its data set, architecture and thresholds are taken as said by the other arguments.
        wanted: how the exits decide.
        out: the bundle's directory.

    Raises:
        UsageError: --resume finds a checkpoint of another training, or a log cannot be written.
        TrainingError: the loss diverged, or a format does not do what Keras does.
    """
    history = fit_network(network, data, parts, options, wanted, out)
    found = searched(network, data.input, parts, _sends(options), batch_size=options.batch_size, seed=options.seed)
    packer = Packer(name, data, parts, found.network, wanted, history, options.formats)
    bundle = write_bundle(
        out,
        packer.fill,
        training=TrainingInfo(options.command, options.seed, data.name, __version__, options.validation_split),
        splits=splits(parts),
        golden=packer.golden(),
        overwrite=options.overwrite,
    )
    remove_checkpoint(out)
    return replace(packer.summary(bundle), over_budget=found.over_budget)


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
    options.recipe.check(options.epochs)
    _sends(options).check()
    if not {"litert", "keras"} & set(options.formats):
        raise UsageError("--formats: expected litert or keras among them: the others are held against float32")
    if options.policy == "entropy" and options.target_share is None and options.thresholds is None:
        raise UsageError("--policy entropy needs --threshold (in nats) or --target-share")
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
    """The parts of `divide`, checked."""
    parts = divide(data, options.validation_split, options.seed)
    for name, part in parts.items():
        if len(part) == 0:
            raise UsageError(
                f"data set {data.name}: too few samples ({len(data.pool)}, and {len(data.test)} to test): none is left "
                f"for {name}; add samples or change --validation-split ({options.validation_split:g})"
            )
    for label in np.setdiff1d(np.arange(len(data.labels)), parts["train"].labels):
        raise UsageError(f"data set {data.name}: class '{data.labels[label]}' has no sample to train on; add some")
    for name in ("temperature", "tune"):
        if len(parts[name]) < FEW:
            log.warning("only %d samples for %s: what is fitted on them is rough", len(parts[name]), name)
    for name in ("early-stop", "temperature", "tune"):
        absent = [data.labels[label] for label in np.setdiff1d(np.arange(len(data.labels)), parts[name].labels)]
        if absent:
            log.warning(
                "no sample of %s in the part %s: it says nothing of %s; add samples or raise --validation-split",
                listed(absent),
                name,
                "it" if len(absent) == 1 else "them",
            )
    return parts


def _build(data: Dataset, options: TrainOptions) -> Network:
    from branchy.models import branching, training

    if options.tiers is not None:
        branching.check_names(options.tiers)
    training.make_deterministic(options.seed)
    return build_network(options.arch, data, options.wanted, options.tiers, _sends(options))


def _sends(options: TrainOptions) -> Sends:
    return Sends(options.uplink, options.uplink_dtype, options.uplink_bytes, options.uplink_accuracy)


def _thresholds(options: TrainOptions, network: Network, classes: int) -> Thresholds:
    """What was asked of the exits, checked against the exits that there are."""
    exits = [s.spec.name for s in network.stages if s.spec.logits is not None]
    for flag, values in (("--exit-weights", options.exit_weights), ("--target-share", options.target_share)):
        if values is not None and len(values) != len(exits):
            raise UsageError(f"{flag} needs a number for each exit ({', '.join(exits)}), got {_list(values)}")
    given = ExitSettings().threshold if options.thresholds is None else options.thresholds
    if isinstance(given, Mapping):
        wrong = [name for name in given if name not in exits[:-1]]
        if wrong:
            raise UsageError(
                f"--threshold: '{wrong[0]}' decides nothing; expected {', '.join(exits[:-1]) or 'none'} "
                f"({exits[-1]} is last and always answers)"
            )
        missing = [name for name in exits[:-1] if name not in given]
        if missing and options.policy == "entropy":
            raise UsageError(f"--threshold: entropy has no default; name {', '.join(missing)} too")
        given = {**dict.fromkeys(missing, ExitSettings().threshold), **given}
    if options.target_share is not None:
        return Thresholds(options.policy, given, tuple(share / 100 for share in options.target_share))
    for threshold in given.values() if isinstance(given, Mapping) else [given]:
        ExitSettings(options.policy, threshold).check(classes)
    return Thresholds(options.policy, given)
