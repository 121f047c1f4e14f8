"""Training all exits together."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from branchy.core.cascade import Array, TensorSpec
from branchy.errors import TrainingError
from branchy.models.backend import keras, tf

PATIENCE = 5
"""Epochs without a lower loss on the early-stopping part before training ends."""


class Labelled(Protocol):
    """Samples that are read a batch at a time (a `branchy.datasets.Part`)."""

    def __len__(self) -> int:
        """Number of samples."""

    def read(self, positions: NDArray[np.int64]) -> tuple[Array, NDArray[np.int64]]:
        """Samples (k, *shape) and class indices (k,) at these positions."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How to train: `exit_weights` weigh each exit's loss, by stage name."""

    exit_weights: Mapping[str, float]
    batch_size: int
    epochs: int
    learning_rate: float
    seed: int


History = Mapping[str, list[float]]
"""By name (`loss`, `val_loss`, `STAGE_accuracy`, `val_STAGE_loss`, ...) a value an epoch."""


def make_deterministic(seed: int) -> None:
    """Same seed, same weights on one machine: seeds and deterministic kernels, for this process."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def fit(model: Any, sample: TensorSpec, train: Labelled, early_stop: Labelled, how: Fit) -> History:
    """Minimise the weighted sum of all exits' losses (BranchyNet, 2016, section III.B) with Adam.

    Stops when the joint loss on the early-stopping part has not fallen for some epochs, and goes
    back to the weights of the best one.

    Args:
        model: from a sample to a dict of logits, by stage name.
        sample: what goes in.
        train: what the weights are fitted to.
        early_stop: what decides when to stop.
        how: batch size, epochs, learning rate, weights of the exits.

    Raises:
        TrainingError: the loss became NaN or infinite, memory ran out, or a sample could not be read.
    """
    exits = list(how.exit_weights)
    model.compile(
        keras.optimizers.Adam(how.learning_rate),
        loss={name: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for name in exits},
        metrics={name: ["accuracy"] for name in exits},
        loss_weights=dict(how.exit_weights),
        jit_compile=False,
    )
    try:
        result = model.fit(
            stream(train, sample, exits, how.batch_size, shuffle_seed=how.seed),
            validation_data=stream(early_stop, sample, exits, how.batch_size),
            epochs=how.epochs,
            shuffle=False,
            verbose=1 if sys.stdout.isatty() else 2,  # a bar for a person, a line an epoch for a log
            callbacks=[
                keras.callbacks.TerminateOnNaN(),
                keras.callbacks.EarlyStopping(patience=PATIENCE, restore_best_weights=True),
            ],
        )
    except tf.errors.OpError as error:
        raise TrainingError(f"TensorFlow failed while training: {_reason(error)}") from error
    history: History = {name: [float(v) for v in values] for name, values in result.history.items()}
    _check_finite(history, how)
    return history


def stream(
    part: Labelled, sample: TensorSpec, exits: list[str], batch_size: int, shuffle_seed: int | None = None
) -> Any:
    """Batches as a tf.data.Dataset of (samples, {exit: labels}); only a few are in memory at a time.

    With a seed the order is another one each epoch, and the same in each run.
    """

    def read(positions: NDArray[np.int64]) -> tuple[Array, NDArray[np.int64]]:
        return part.read(positions)

    def batch(positions: Any) -> Any:
        x, y = tf.numpy_function(read, [positions], [tf.as_dtype(sample.dtype), tf.int64], stateful=False)
        x, y = tf.ensure_shape(x, (None, *sample.shape)), tf.ensure_shape(y, (None,))
        return x, dict.fromkeys(exits, y)

    positions = tf.data.Dataset.range(len(part))
    if shuffle_seed is not None:
        positions = positions.shuffle(len(part), seed=shuffle_seed)
    batches = positions.batch(batch_size).map(batch, num_parallel_calls=2, deterministic=True)
    return batches.prefetch(2)


def _check_finite(history: History, how: Fit) -> None:
    for epoch, loss in enumerate(history["loss"], start=1):
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} in epoch {epoch} of {how.epochs}; "
                f"try a smaller --learning-rate (it was {how.learning_rate:g}), and check the data set's range"
            )


def _reason(error: Exception) -> str:
    """What went wrong, in one line; of a Python error in the pipeline, its own message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    own = [line for line in lines if line.startswith("branchy.errors.")]
    return (own or lines)[0][:300]
