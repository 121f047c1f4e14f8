"""The test part of a data set, for a bundle that was trained on its like."""

from __future__ import annotations

from branchy import datasets
from branchy.core.cascade import CascadeSpec
from branchy.datasets import Dataset
from branchy.errors import DatasetUsageError
from branchy.reports.text import listed


def load_held_out(name_or_path: str, spec: CascadeSpec) -> Dataset:
    """A data set in the size that a bundle takes, checked against it; only its test part is sure to be readable.

    Raises:
        DatasetUsageError: there is no such data set, or it has other labels, samples or range than the bundle.
        DatasetError: it cannot be read.
    """
    height, width = spec.input.tensor.shape[:2]
    dataset = datasets.load(name_or_path, size=(height, width), test_only=True)
    check_fits(dataset, spec)
    return dataset


def check_fits(dataset: Dataset, spec: CascadeSpec) -> None:
    """Raise `DatasetUsageError` unless a data set has the labels, samples and range that a bundle takes."""
    want, found = spec.input, dataset.input
    if dataset.labels != spec.labels:
        raise DatasetUsageError(
            f"data set {dataset.name}: expected the bundle's classes {listed(spec.labels)}, "
            f"got {listed(dataset.labels)}"
        )
    if (want.tensor.shape, want.tensor.dtype) != (found.tensor.shape, found.tensor.dtype):
        raise DatasetUsageError(
            f"data set {dataset.name}: expected samples {want.tensor.shape} of {want.tensor.dtype}, "
            f"as the bundle takes them, got {found.tensor.shape} of {found.tensor.dtype}"
        )
    if (want.low, want.high) != (found.low, found.high):
        raise DatasetUsageError(
            f"data set {dataset.name}: expected values in the bundle's range {want.low:g}..{want.high:g}, "
            f"got a data set that declares {found.low:g}..{found.high:g}"
        )
