"""A data set: labels, what a sample looks like, and samples that are read when they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from branchy.core.cascade import Array, InputSpec
from branchy.errors import DatasetUsageError

Indices = NDArray[np.int64]


class Samples(Protocol):
    """All samples of a data set, numbered; reading one may open a file."""

    def read(self, index: int) -> Array:
        """One sample, (height, width, channels) of the data set's dtype; raises `DatasetError`."""

    def raw(self, index: int) -> bytes:
        """What that sample is read from: a file's bytes, or an array's values; raises `DatasetError`."""


@dataclass(frozen=True)
class Part:
    """Some of a data set's samples, in an order of their own.

    Attributes:
        samples: all samples of the data set.
        indices: (n,) which of them, by their number in the data set.
        labels: (n,) class indices, in the same order.
    """

    samples: Samples
    indices: Indices
    labels: Indices

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[Array, int]:
        """Sample (height, width, channels) and class index at a position."""
        return self.samples.read(int(self.indices[position])), int(self.labels[position])

    def __iter__(self) -> Iterator[tuple[Array, int]]:
        """Samples and class indices in order, one in memory at a time."""
        return (self[position] for position in range(len(self)))

    def take(self, positions: Indices) -> Part:
        """The part that holds what is at these positions."""
        return Part(self.samples, self.indices[positions], self.labels[positions])

    def read(self, positions: Indices) -> tuple[Array, Indices]:
        """Samples (k, height, width, channels) and class indices (k,) at k >= 1 positions."""
        return np.stack([self[int(p)][0] for p in positions]), self.labels[positions]

    def digest(self) -> str:
        """SHA-256 of what the samples are read from and of their labels, in order; raises `DatasetError`."""
        found = hashlib.sha256()
        for index, label in zip(self.indices.tolist(), self.labels.tolist(), strict=True):
            raw = self.samples.raw(index)
            found.update(f"{index} {label} {len(raw)} ".encode())
            found.update(raw)
        return found.hexdigest()

    def batches(self, size: int) -> Iterator[tuple[Array, Indices]]:
        """The whole part in order, `size` samples in memory at a time (the last batch may be smaller)."""
        for start in range(0, len(self), size):
            yield self.read(np.arange(start, min(start + size, len(self))))


@dataclass(frozen=True)
class Dataset:
    """Labelled samples with a test part that nothing is ever fitted on.

    Attributes:
        name: for people, and the bundle's name unless told.
        labels: the classes' names; a class index counts into them.
        input: shape, dtype and declared range of a sample, and how an image file becomes one.
        pool: the samples that are not for testing.
        test: the held-out samples; the same whatever the seed of a training.
        skipped: files that could not be read and were left out, one line each.
    """

    name: str
    labels: tuple[str, ...]
    input: InputSpec
    pool: Part
    test: Part
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the labels; raises `DatasetUsageError`."""
        if len(self.labels) < 2:
            raise DatasetUsageError(
                f"data set {self.name}: expected at least two classes, got {len(self.labels)}: {', '.join(self.labels)}"
            )
        if len(set(self.labels)) != len(self.labels):
            raise DatasetUsageError(
                f"data set {self.name}: expected different names for the classes, got {self.labels}"
            )
        for part in (self.pool, self.test):
            wrong = part.labels[(part.labels < 0) | (part.labels >= len(self.labels))]
            if wrong.size:
                raise DatasetUsageError(
                    f"data set {self.name}: expected labels in 0..{len(self.labels) - 1}, got {wrong[0]}; "
                    "number the classes from 0"
                )
