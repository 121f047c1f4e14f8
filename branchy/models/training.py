"""Training all exits together, an epoch at a time."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from branchy.core.cascade import Array, TensorSpec
from branchy.errors import TrainingError, UsageError
from branchy.models.backend import keras, tf, translated
from branchy.models.batches import Augment, Labelled, samples_in_order, training_batches
from branchy.models.checkpoint import Progress
from branchy.models.precision import gpus, mixed
from branchy.models.schedule import ByStep, Schedule
from branchy.models.steps import Distillation, Steps, Totals, make_optimizer
from branchy.models.stopping import Goal, StopOn, cascade_score, exit_losses, rank

log = logging.getLogger(__name__)

STEPS_A_CALL = 50
"""Training steps between two looks at the loss."""

History = Mapping[str, list[float]]
"""By name (`loss`, `STAGE_accuracy`, `val_STAGE_loss`, `val_cascade_accuracy`, ...) a value an epoch."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How to train.

    Attributes:
        exit_weights: of each exit's loss, by stage name, in order.
        goal: how the finished cascade shall decide.
        batch_size: samples a step, over all devices.
        schedule: of the learning rate; its `epochs` are the most that are trained.
        seed: of the order of the samples.
        stop_on: which epoch was the best, see `stopping.rank`.
        patience: epochs in which neither that nor the joint loss got better before training ends.
        augment: what is done to the samples of an epoch.
        class_weights: (classes,) of each sample's loss; None weighs all alike.
        distillation: where earlier exits learn from the last.
        mixed_precision: whether layers compute in float16.
    """

    exit_weights: Mapping[str, float]
    goal: Goal
    batch_size: int
    schedule: Schedule
    seed: int
    stop_on: StopOn = "cascade"
    patience: int = 5
    augment: Augment | None = None
    class_weights: NDArray[np.float32] | None = None
    distillation: Distillation | None = None
    mixed_precision: bool = False


@dataclass
class _State:
    """What early stopping and the history know, beside the variables."""

    history: dict[str, list[float]] = field(default_factory=dict)
    best_rank: tuple[float, ...] | None = None
    lowest_loss: float = math.inf
    best_weights: list[Array] = field(default_factory=list)
    waited: int = 0

    @property
    def epochs(self) -> int:
        return len(self.history.get("loss", ()))


_COUNTED = ("history", "best_rank", "lowest_loss", "waited")
"""What a checkpoint keeps of a state beside its weights."""


def make_deterministic(seed: int) -> None:
    """Same seed, same weights on one machine: seeds and deterministic kernels, for this process.

    Layers without a name of their own are numbered from 0 again, as their numbers go into the files.
    The seed is in 0..2**32-1.
    """
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def fit(
    model: Any,
    sample: TensorSpec,
    train: Labelled,
    early_stop: Labelled,
    how: Fit,
    *,
    resume: Progress | None = None,
    after_epoch: Callable[[History, Callable[[], Progress]], None] = lambda history, progress: None,
) -> History:
    """Minimise the weighted sum of all exits' losses (BranchyNet, 2016, section III.B) with Adam.

    Stops when nothing got better on the early-stopping part for some time, and goes back to the
    weights of the best epoch. With several GPUs each gets a part of every batch.

    Args:
        model: from a sample to a dict of logits, by stage name.
        sample: what goes in.
        train: what the weights are fitted to.
        early_stop: what decides when to stop.
        how: everything else.
        resume: what `after_epoch` was given before; from there on it goes as if it had not ended.
        after_epoch: is given the history so far, and what makes a checkpoint of it.

    Raises:
        TrainingError: the loss became NaN or infinite, memory ran out, or a sample could not be read.
        UsageError: what is to be resumed is of a model with other variables.
    """
    with (
        _spread(model) as (trained, strategy),
        mixed(trained) if how.mixed_precision else contextlib.nullcontext(),
        translated("training"),
    ):
        return _Trainer(trained, strategy, sample, train, early_stop, how).run(resume, after_epoch)


class _Trainer:
    """One training: its steps, its batches, and what it has come to."""

    def __init__(
        self, model: Any, strategy: Any, sample: TensorSpec, train: Labelled, early_stop: Labelled, how: Fit
    ) -> None:
        self._model, self._strategy, self._sample, self._how = model, strategy, sample, how
        self._train, self._early_stop = train, early_stop
        self._spread = strategy.num_replicas_in_sync > 1
        self._batch_size = min(how.batch_size, len(train))
        used = len(train) - len(train) % self._batch_size if self._spread else len(train)
        self._steps_per_epoch = -(-used // self._batch_size)
        with strategy.scope():
            rate = ByStep(how.schedule, self._steps_per_epoch)
            self._optimizer = make_optimizer(rate, scaled=how.mixed_precision)
            self._optimizer.build(model.trainable_variables)
            self._steps = Steps(model, self._optimizer, how.exit_weights, how.distillation, strategy)
        self._validation = samples_in_order(early_stop, sample, self._batch_size)
        self._state = _State()

    def run(self, resume: Progress | None, after_epoch: Callable[[History, Callable[[], Progress]], None]) -> History:
        if resume is not None:
            self._restore(resume)
        state, epochs = self._state, self._how.schedule.epochs
        batches = iter(self._batches(state.epochs, epochs))
        while state.epochs < epochs and state.waited < self._how.patience:
            self._epoch(batches)
            after_epoch(state.history, self._progress)
        for variable, value in zip(self._model.weights, state.best_weights, strict=True):
            variable.assign(value)
        return state.history

    def _batches(self, first: int, end: int) -> Any:
        how = self._how
        batches = training_batches(
            self._train,
            self._sample,
            batch_size=self._batch_size,
            epochs=(first, end),
            seed=how.seed,
            augment=how.augment,
            class_weights=how.class_weights,
            whole_batches=self._spread,
        )
        return self._strategy.experimental_distribute_dataset(batches)

    def _epoch(self, batches: Any) -> None:
        state, number = self._state, self._state.epochs + 1
        rate = float(self._optimizer.learning_rate)
        row = {**self._trained(batches, number), **self._validated(number), "learning_rate": rate}
        for name, value in row.items():
            state.history.setdefault(name, []).append(value)
        log.info(
            "epoch %d of %d: loss %.4f; early-stop part: loss %.4f, cascade %.1f%% right, loss %.4f, %.3f MFLOPs",
            number,
            self._how.schedule.epochs,
            *(row[name] for name in ("loss", "val_loss")),
            100 * row["val_cascade_accuracy"],
            row["val_cascade_loss"],
            row["val_cascade_flops"] / 1e6,
        )

    def _trained(self, batches: Any, number: int) -> dict[str, float]:
        """One pass over the training part; the mean of what it saw under way."""
        total = Totals.of(np.zeros(2 + 2 * len(self._how.exit_weights)))
        title = f"epoch {number}/{self._how.schedule.epochs}"
        with tqdm(total=self._steps_per_epoch, desc=title, unit="step", leave=False) as bar:
            for done in range(0, self._steps_per_epoch, STEPS_A_CALL):
                count = min(STEPS_A_CALL, self._steps_per_epoch - done)
                total = total.plus(self._steps.run(batches, count))
                self._check_finite(total.loss, number)
                bar.update(count)
        return self._row("", total.loss / total.samples, total.losses / total.samples, total.right / total.samples)

    def _validated(self, number: int) -> dict[str, float]:
        """The early-stopping part; keeps the weights if they are the best so far."""
        how, labels = self._how, self._early_stop.labels
        logits = np.concatenate([self._steps.logits(x) for x in self._validation], axis=1)
        losses = exit_losses(logits, labels)
        joint = float(losses @ list(how.exit_weights.values()))
        self._check_finite(joint, number)
        cascade = cascade_score(logits, labels, how.goal)
        self._compare(rank(how.stop_on, cascade, joint, how.goal), joint)
        return {
            **self._row("val_", joint, losses, (logits.argmax(axis=-1) == labels).mean(axis=1)),
            "val_cascade_accuracy": cascade.accuracy,
            "val_cascade_loss": cascade.loss,
            "val_cascade_flops": cascade.flops,
        }

    def _compare(self, found: tuple[float, ...], joint: float) -> None:
        """Keep the weights if no epoch was better, and count the epochs in which nothing got better."""
        state = self._state
        better = state.best_rank is None or found < state.best_rank
        state.waited = 0 if better or joint < state.lowest_loss else state.waited + 1
        state.lowest_loss = min(state.lowest_loss, joint)
        if better:
            state.best_rank = found
            state.best_weights = [_value(weight) for weight in self._model.weights]

    def _row(
        self, prefix: str, loss: float, losses: NDArray[np.float64], accuracies: NDArray[np.float64]
    ) -> dict[str, float]:
        row = {f"{prefix}loss": float(loss)}
        for name, exit_loss, accuracy in zip(self._how.exit_weights, losses, accuracies, strict=True):
            row |= {f"{prefix}{name}_loss": float(exit_loss), f"{prefix}{name}_accuracy": float(accuracy)}
        return row

    def _check_finite(self, loss: float, number: int) -> None:
        if not np.isfinite(loss):
            schedule = self._how.schedule
            raise TrainingError(
                f"the loss became {loss} in epoch {number} of {schedule.epochs}; "
                f"try a smaller --learning-rate (it was {schedule.learning_rate:g}), and check the data set's range"
            )

    def _variables(self) -> dict[str, Any]:
        """Every variable that a training changes, the states of random numbers among them, by a name."""
        groups = {"model": self._model.variables, "optimizer": self._optimizer.variables}
        return {f"{group}/{i}": variable for group, found in groups.items() for i, variable in enumerate(found)}

    def _progress(self) -> Progress:
        state = self._state
        tensors = {name: _value(variable) for name, variable in self._variables().items()}
        tensors |= {f"best/{i}": weight for i, weight in enumerate(state.best_weights)}
        values = copy.deepcopy({name: getattr(state, name) for name in _COUNTED})
        return Progress(tensors, values)

    def _restore(self, progress: Progress) -> None:
        variables = self._variables()
        mine = {name: tuple(variable.shape) for name, variable in variables.items()}
        if mine != {name: each.shape for name, each in progress.tensors.items() if not name.startswith("best/")}:
            raise UsageError(
                "the checkpoint is of another model, with other variables: give what it was begun with, or leave out "
                "--resume to start anew"
            )
        for name, variable in variables.items():
            variable.assign(progress.tensors[name])
        best = [progress.tensors[f"best/{i}"] for i in range(len(self._model.weights))]
        values = {name: progress.values[name] for name in _COUNTED}
        self._state = _State(**{**values, "best_rank": tuple(values["best_rank"])}, best_weights=best)


@contextlib.contextmanager
def _spread(model: Any) -> Any:
    """The model to train, and the strategy for it; with several GPUs a copy on each, read back at the end."""
    if len(devices()) < 2:
        yield model, tf.distribute.get_strategy()
        return
    strategy = tf.distribute.MirroredStrategy(devices())
    with strategy.scope():
        spread = keras.models.clone_model(model)
        for mine, its in zip(spread.variables, model.variables, strict=True):
            mine.assign(_value(its))
    yield spread, strategy
    for mine, its in zip(model.variables, spread.variables, strict=True):
        mine.assign(_value(its))


def _value(variable: Any) -> Array:
    """A copy of what a variable holds; where it is on several devices, of the first."""
    return np.array(variable.value.numpy())


def devices() -> list[str]:
    """Names of the devices that share a training."""
    return [device.name.replace("physical_device", "device") for device in gpus()]
