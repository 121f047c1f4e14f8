"""Samples on their way into training: a few batches in memory at a time.

The order of an epoch follows from seed, epoch and the samples' indices, and so does the
augmentation: one pipeline runs through all epochs and can begin with any.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from branchy.core.cascade import Array, TensorSpec
from branchy.models.backend import tf
from branchy.models.stateless import uniform

Indices = NDArray[np.int64]
Augment = Callable[[Array, Indices, int], Array]
"""Samples (k, ...), their indices (k,) and the epoch, from 0, to samples of the same shape and dtype."""

_ORDER = 2**32
"""In the key of an epoch's order; no augmentation has it."""


class Labelled(Protocol):
    """Samples that are read a batch at a time (a `branchy.datasets.Part`)."""

    def __len__(self) -> int:
        """Number of samples."""

    @property
    def indices(self) -> Indices:
        """(n,) of the samples in their data set."""

    @property
    def labels(self) -> Indices:
        """(n,) class indices."""

    def read(self, positions: Indices) -> tuple[Array, Indices]:
        """Samples at these positions.

        Args:
            positions: (k,) in 0..n-1, of the part.

        Returns:
            Samples (k, *shape) of the data set's dtype and class indices (k,).
        """


def order(indices: Indices, seed: int, epoch: int) -> Indices:
    """The order of an epoch.

    Args:
        indices: (n,) of the samples in their data set, by which they are ordered wherever they stand.
        seed: of the training.
        epoch: from 0.

    Returns:
        (n,) positions in 0..n-1, each once.
    """
    return np.argsort(uniform(indices, seed, epoch, _ORDER), kind="stable")


def balanced(labels: Indices, classes: int) -> NDArray[np.float32]:
    """Weights that give each class the same say.

    Args:
        labels: (n,) class indices.
        classes: how many there may be.

    Returns:
        (classes,) n / (classes that there are * samples of the class); of no meaning for a class without any.
    """
    counts = np.bincount(labels, minlength=classes)
    return np.asarray(len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1)), dtype=np.float32)


def training_batches(
    part: Labelled,
    sample: TensorSpec,
    *,
    batch_size: int,
    epochs: tuple[int, int],
    seed: int,
    augment: Augment | None,
    class_weights: NDArray[np.float32] | None,
    whole_batches: bool,
) -> Any:
    """Batches of some epochs, one after the other, as a tf.data.Dataset of (samples, classes, weights).

    Args:
        part: what is trained on.
        sample: shape and dtype.
        batch_size: samples a batch; an epoch's last has what is left.
        epochs: the first, from 0, and the one after the last.
        seed: of the order.
        augment: what is done to the samples.
        class_weights: (classes,) of each sample's loss; None weighs all alike.
        whole_batches: leave out an epoch's last batch where it is smaller.

    Returns:
        Of which the weights of a batch, (k,) float32, are those of the classes, divided by k.
    """
    used = len(part) - len(part) % batch_size if whole_batches else len(part)

    def ordered(epoch: NDArray[np.int64]) -> Indices:
        return order(part.indices, seed, int(epoch))[:used]

    def read(epoch: NDArray[np.int64], positions: Indices) -> tuple[Array, Indices, NDArray[np.float32]]:
        x, y = part.read(positions)
        if augment is not None:
            x = augment(x, part.indices[positions], int(epoch))
        weights = np.ones(len(y), np.float32) if class_weights is None else class_weights[y]
        return x, y, weights / np.float32(len(y))

    def of_epoch(epoch: Any) -> Any:
        positions = tf.ensure_shape(tf.numpy_function(ordered, [epoch], tf.int64, stateful=False), (used,))
        batches = tf.data.Dataset.from_tensor_slices(positions).batch(batch_size, drop_remainder=whole_batches)
        return batches.map(lambda positions: (epoch, positions))

    def batch(epoch: Any, positions: Any) -> Any:
        types = [tf.as_dtype(sample.dtype), tf.int64, tf.float32]
        x, y, weights = tf.numpy_function(read, [epoch, positions], types, stateful=False)
        count = positions.shape[0]
        x = tf.ensure_shape(x, (count, *sample.shape))
        return x, tf.ensure_shape(y, (count,)), tf.ensure_shape(weights, (count,))

    positions = tf.data.Dataset.range(*epochs).flat_map(of_epoch)
    return positions.map(batch, num_parallel_calls=2, deterministic=True).prefetch(2)


def samples_in_order(part: Labelled, sample: TensorSpec, batch_size: int) -> Any:
    """The samples of a part in their order.

    Args:
        part: of n samples.
        sample: their shape and dtype.
        batch_size: samples a batch; the last has what is left.

    Returns:
        A tf.data.Dataset of (k, *shape) in the data set's dtype.
    """

    def read(positions: Indices) -> Array:
        return part.read(positions)[0]

    def batch(positions: Any) -> Any:
        x = tf.numpy_function(read, [positions], tf.as_dtype(sample.dtype), stateful=False)
        return tf.ensure_shape(x, (None, *sample.shape))

    positions = tf.data.Dataset.range(len(part)).batch(batch_size)
    return positions.map(batch, num_parallel_calls=2, deterministic=True).prefetch(2)
