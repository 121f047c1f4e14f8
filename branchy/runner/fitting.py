"""From options to fitted weights: the recipe in the words of `models.training`, checkpoints and logs."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import branchy
from branchy.core.cascade import StageSpec
from branchy.datasets import Dataset, Part
from branchy.errors import TrainingError, UsageError
from branchy.reports import history as reports
from branchy.runner.calibration import Thresholds
from branchy.runner.recipe import Recipe

if TYPE_CHECKING:
    from branchy.models.checkpoint import CheckpointFile, Progress
    from branchy.models.splitting import Network
    from branchy.models.stopping import Goal
    from branchy.models.training import Fit, History
    from branchy.runner.training import TrainOptions

log = logging.getLogger(__name__)

NOT_OF_THE_WEIGHTS = ("dataset", "out", "name", "overwrite", "command", "resume", "log_dir", "formats")
"""Options that change nothing in how the weights are found (of the data set its content does)."""


def checkpoint_path(out: Path) -> Path:
    """Where the checkpoint of a training lies whose bundle is not there yet."""
    return out.with_name(f"{out.name}.checkpoint")


def fit_network(
    network: Network, data: Dataset, parts: Mapping[str, Part], options: TrainOptions, wanted: Thresholds, out: Path
) -> History:
    """Train a network's exits together, with a checkpoint after each epoch.

    Args:
        network: its weights are where training begins, and are trained in place.
        data: what `parts` are of.
        parts: of which `train` is trained on, and `early-stop` decides which epoch is the best.
        options: how to train.
        wanted: how the finished cascade decides.
        out: the bundle's directory, beside which the checkpoint lies.

    Returns:
        By name (`loss`, `val_cascade_accuracy`, ...) a value an epoch.

    Raises:
        TrainingError: see `models.training.fit`; or a checkpoint cannot be written or read.
        UsageError: --resume finds a checkpoint of another training, or a log cannot be written.
    """
    from branchy.models.checkpoint import CheckpointFile
    from branchy.models.training import fit

    how = _fit(network, data, parts["train"], options, wanted)
    file = CheckpointFile(checkpoint_path(out), identity(data, parts, options))
    resume = _begin(file, resume=options.resume)
    with ExitStack() as stack:
        write_logs = _logs(options.log_dir, stack)

        def after_epoch(history: History, progress: Callable[[], Progress]) -> None:
            file.write(progress())
            write_logs(history)

        return fit(
            network.trained,
            data.input.tensor,
            parts["train"],
            parts["early-stop"],
            how,
            resume=resume,
            after_epoch=after_epoch,
        )


def remove_checkpoint(out: Path) -> None:
    """Take away what is not needed any more once the bundle is there."""
    from branchy.models.checkpoint import CheckpointFile

    CheckpointFile(checkpoint_path(out), {}).remove()


def identity(data: Dataset, parts: Mapping[str, Part], options: TrainOptions) -> dict[str, str]:
    """What must be the same for a training to go on as if it had not ended.

    Args:
        data: whose input is trained on.
        parts: of which `train` and `early-stop` count.
        options: without those that are `NOT_OF_THE_WEIGHTS`.

    Returns:
        By a name that people know, its value or SHA-256 as text.

    Raises:
        UsageError: mixed precision is asked for where no GPU is.
    """
    given = {name: value for name, value in asdict(options).items() if name not in NOT_OF_THE_WEIGHTS}
    given |= {**given.pop("recipe"), **given.pop("wanted")}
    found = {f"--{name.replace('_', '-')}": repr(value) for name, value in given.items()}
    found["data"] = hashlib.sha256("".join(parts[p].digest() for p in ("train", "early-stop")).encode()).hexdigest()
    found["input"] = repr(data.input)
    files = {f"content of {path}": hashlib.sha256(path.read_bytes()).hexdigest() for path in _own_files(options)}
    return found | files | _devices(options.recipe) | _code()


def _own_files(options: TrainOptions) -> set[Path]:
    """The files of the user's own that an architecture, its weights, a preprocessing and heads come from."""
    from branchy.models.functions import source
    from branchy.models.preprocessing import KERAS

    arch, wanted = options.arch, options.wanted
    saved = {path for path in map(Path, (arch, arch.rpartition(":")[2])) if path.is_file()}
    named = [name for name in (arch, wanted.preprocessing, *(wanted.heads or ())) if name]
    found = [source(name) for name in named if not name.startswith(KERAS)]
    return saved.union(path for path in found if path is not None)


def _devices(recipe: Recipe) -> dict[str, str]:
    """What it computes on and in: other devices round otherwise, or have another optimizer."""
    from branchy.models.training import devices

    return {"number of GPUs": str(len(devices())), "mixed precision here": str(computes_mixed(recipe))}


CODE = ("core/*.py", "datasets/*.py", "models/*.py", "runner/architecture.py", "runner/fitting.py", "runner/parts.py")
"""What of branchy decides on the weights and on the best epoch."""


def _code() -> dict[str, str]:
    """Versions of what computes; branchy's own code by its content, as a checkout has one version for many states."""
    from branchy.models.backend import keras, tf

    folder, code = Path(branchy.__file__).parent, hashlib.sha256()
    for path in sorted(path for pattern in CODE for path in folder.glob(pattern)):
        code.update(path.read_bytes())
    versions = {"branchy": branchy.__version__, "tensorflow": tf.__version__, "keras": keras.__version__}
    return {**versions, "numpy": np.__version__, "branchy's code": code.hexdigest()}


def _begin(file: CheckpointFile, *, resume: bool) -> Progress | None:
    if not resume:
        if file.path.exists():
            log.warning("%s of a training that was not finished will be replaced; --resume goes on from it", file.path)
        return None
    found = file.read()
    if found is None:
        log.info("no checkpoint %s: training from the beginning", file.path)
    else:
        log.info("going on from %s after epoch %d", file.path, len(found.values["history"]["loss"]))
    return found


def _fit(network: Network, data: Dataset, train: Part, options: TrainOptions, wanted: Thresholds) -> Fit:
    from branchy.models.augment import Augmentation
    from branchy.models.schedule import Schedule
    from branchy.models.steps import Distillation
    from branchy.models.training import Fit

    recipe, exits = options.recipe, [stage.spec for stage in network.stages if stage.spec.logits is not None]
    weights = options.exit_weights or (1.0,) * len(exits)
    return Fit(
        exit_weights=dict(zip((spec.name for spec in exits), weights, strict=True)),
        goal=_goal(exits, network, wanted),
        batch_size=options.batch_size,
        schedule=Schedule(recipe.schedule, options.learning_rate, options.epochs, recipe.warmup_epochs),
        seed=options.seed,
        stop_on=recipe.stop_on,
        patience=recipe.patience,
        augment=Augmentation(recipe.augment, data.input, options.seed) if recipe.augment else None,
        class_weights=_class_weights(recipe, train, len(data.labels)),
        distillation=Distillation(*recipe.distill) if recipe.distill else None,
        mixed_precision=computes_mixed(recipe),
    )


def _class_weights(recipe: Recipe, train: Part, classes: int) -> NDArray[np.float32] | None:
    """(classes,) of a sample's loss; None weighs all alike."""
    from branchy.models.batches import balanced

    if recipe.class_weights == "none":
        return None
    if recipe.class_weights == "balanced":
        return balanced(train.labels, classes)
    return np.asarray(recipe.class_weights, np.float32)


def _goal(exits: Sequence[StageSpec], network: Network, wanted: Thresholds) -> Goal:
    from branchy.models.stopping import Goal

    given = wanted.given
    names = [spec.name for spec in exits]
    costs = np.cumsum([stage.spec.flops for stage in network.stages])
    return Goal(
        policy=wanted.policy,
        # The last exit always answers, so that what is put for it is not looked at.
        thresholds=[given.get(name, 0.0) if isinstance(given, Mapping) else given for name in names],
        shares=wanted.shares,
        flops=[int(cost) for cost, stage in zip(costs, network.stages, strict=True) if stage.spec.logits is not None],
    )


def computes_mixed(recipe: Recipe) -> bool:
    """Whether training computes in float16 here; raises `UsageError` where it cannot but is asked to."""
    from branchy.models import precision

    if recipe.mixed_precision == "on" and not precision.gpus():
        raise UsageError("--mixed-precision on needs a GPU, and TensorFlow sees none; leave it at auto")
    return recipe.mixed_precision == "on" or (recipe.mixed_precision == "auto" and precision.worthwhile())


def _logs(folder: Path | None, stack: ExitStack) -> Callable[[History], None]:
    """What writes a history as `history.csv` and for TensorBoard after each epoch, where a folder is wanted."""
    if folder is None:
        return lambda history: None
    from branchy.models.tensorboard import EventLog

    try:
        folder.mkdir(parents=True, exist_ok=True)
        events = stack.enter_context(EventLog(folder))
    except OSError as error:
        raise UsageError(f"--log-dir {folder}: cannot be written: {error.strerror or error}") from None

    def write(history: History) -> None:
        try:
            reports.write_csv(folder / "history.csv", history)
            events.write(history)
        except OSError as error:
            raise TrainingError(
                f"--log-dir {folder}: cannot be written: {error.strerror or error}; --resume goes on once it can"
            ) from None

    return write
