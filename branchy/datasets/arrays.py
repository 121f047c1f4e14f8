"""Data sets in memory: `.npz` files."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from branchy.core.cascade import Array, InputSpec, TensorSpec
from branchy.datasets import images
from branchy.datasets.dataset import Dataset, Indices, Part
from branchy.errors import DatasetError, DatasetUsageError

KEYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class ArraySamples:
    """Samples in memory, (n, height, width, channels), resized when they are read."""

    arrays: tuple[Array, ...]
    size: tuple[int, int]

    def read(self, index: int) -> Array:
        """One sample; the arrays are numbered one after the other."""
        return images.resize(self._at(index), self.size)

    def raw(self, index: int) -> bytes:
        """One sample's values before it is resized."""
        return self._at(index).tobytes()

    def _at(self, index: int) -> Array:
        for array in self.arrays:
            if index < len(array):
                sample: Array = array[index]
                return sample
            index -= len(array)
        raise IndexError(index)


def load_npz(
    path: Path,
    size: tuple[int, int] | None,
    *,
    name: str | None = None,
    labels: tuple[str, ...] | None = None,
    one_hot: bool = True,
) -> Dataset:
    """An `.npz` with `x_train`, `y_train`, `x_test`, `y_test` and, where wanted, `labels` and `range`.

    Samples are (n, height, width) or (n, height, width, 1 or 3); whole numbers must fit uint8 and
    have the range 0..255 unless told; floats need `range`, two numbers: the lowest and highest value.
    Labels are class indices (n,), or one-hot rows (n, classes): a single 1, else 0.

    Args:
        path: the file.
        size: (height, width) of a sample; as in the file unless told.
        name: the data set's; the file's unless told.
        labels: the classes' names where the file has none; else 0, 1, ...
        one_hot: whether the labels may be one-hot rows.

    Raises:
        DatasetUsageError: an array is missing, or of a wrong shape, dtype or range.
        DatasetError: the file cannot be read.
    """
    data = _read(path)
    x = [_samples(path, key, data[key]) for key in KEYS[::2]]
    y = [_labels(path, key, data[key], one_hot=one_hot) for key in KEYS[1::2]]
    for key, a, b in zip(KEYS[::2], x, y, strict=True):
        if len(a) != len(b) or not len(a):
            raise DatasetUsageError(
                f"{path}: expected as many labels as samples, and some, got {len(a)} in {key} and {len(b)}"
            )
    if x[0].shape[1:] != x[1].shape[1:] or x[0].dtype != x[1].dtype:
        raise DatasetUsageError(
            f"{path}: expected x_train and x_test of one shape and dtype, "
            f"got {x[0].shape[1:]} {x[0].dtype} and {x[1].shape[1:]} {x[1].dtype}"
        )
    count = _class_count(path, y, data)
    names = tuple(str(v) for v in data["labels"].ravel()) if "labels" in data else labels
    return in_memory(
        name or path.stem,
        names or tuple(str(i) for i in range(count)),
        tuple(x),
        np.concatenate(y),
        _range(path, data.get("range"), x),
        (np.arange(len(x[0])), len(x[0]) + np.arange(len(x[1]))),
        size,
    )


def in_memory(
    name: str,
    labels: tuple[str, ...],
    arrays: tuple[Array, ...],
    classes: Indices,
    value_range: tuple[float, float],
    parts: tuple[Indices, Indices],
    size: tuple[int, int] | None,
) -> Dataset:
    """A data set from arrays (n, height, width, channels), numbered one after the other.

    Args:
        name: the data set's.
        labels: the classes' names.
        arrays: the samples, all of one shape and dtype.
        classes: (n,) class indices over all arrays.
        value_range: the lowest and highest value a sample may hold.
        parts: indices of the samples that are not for testing, and of those that are.
        size: (height, width) of a sample; None leaves it.
    """
    height, width, channels = arrays[0].shape[1:]
    size = size or (height, width)
    spec = InputSpec(
        TensorSpec("sample", (*size, channels), "uint8" if arrays[0].dtype == np.uint8 else "float32"),
        *value_range,
        channel_order="L" if channels == 1 else "RGB",
    )
    samples = ArraySamples(arrays, size)
    pool, test = (Part(samples, indices, classes[indices]) for indices in parts)
    return Dataset(name, labels, spec, pool, test)


def _read(path: Path) -> Mapping[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in KEYS if key not in file]
            if missing:
                raise DatasetUsageError(
                    f"{path}: expected arrays {', '.join(KEYS)}, got no {', '.join(missing)}; it has {', '.join(file)}"
                )
            return {key: file[key] for key in (*KEYS, "labels", "range") if key in file}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path}: expected an .npz file without pickled objects: {error}") from None


def _samples(path: Path, key: str, array: NDArray[Any]) -> Array:
    if array.ndim == 3:
        array = array[..., np.newaxis]
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or 0 in array.shape[1:]:
        raise DatasetUsageError(
            f"{path}: {key}: expected shape (n, height, width) or (n, height, width, 1 or 3), got {array.shape}"
        )
    if array.dtype.kind == "f":
        return np.asarray(array, dtype=np.float32)
    if array.dtype.kind not in "iu" or (array.size and not (array.min() >= 0 and array.max() <= 255)):
        raise DatasetUsageError(f"{path}: {key}: expected whole numbers in 0..255 or floats, got {array.dtype}")
    return np.asarray(array, dtype=np.uint8)


def _labels(path: Path, key: str, array: NDArray[Any], *, one_hot: bool) -> Indices:
    if array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind in "biuf":
        return _hot(path, key, array, allowed=one_hot)
    if array.dtype.kind not in "iu" or array.ndim == 0 or array.size != len(array):
        raise DatasetUsageError(
            f"{path}: {key}: expected class indices, (n,) whole numbers, got {array.dtype} {array.shape}"
        )
    return array.reshape(-1).astype(np.int64)


def _hot(path: Path, key: str, array: NDArray[Any], *, allowed: bool) -> Indices:
    """Where each row (n, classes) has its 1."""
    wrong = np.flatnonzero(((array != 0) & (array != 1)).any(axis=1) | ((array == 1).sum(axis=1) != 1))
    if wrong.size:
        row = array[wrong[0]].tolist()
        raise DatasetUsageError(
            f"{path}: {key}: expected class indices (n,), or one-hot rows with a single 1, "
            f"got {array.dtype} {array.shape} with row {wrong[0]} {row!s:.60}"
        )
    if not allowed:
        raise DatasetUsageError(
            f"{path}: {key}: expected class indices, (n,) whole numbers, got one-hot rows {array.shape}; "
            "give --label-mode categorical"
        )
    return np.asarray(array.argmax(axis=1), dtype=np.int64)


def _class_count(path: Path, classes: list[Indices], data: Mapping[str, NDArray[Any]]) -> int:
    """How many classes there are: the one-hot rows' columns, else up to the highest index."""
    columns = {int(data[key].shape[1]) for key in KEYS[1::2] if data[key].ndim == 2 and data[key].shape[1] > 1}
    if len(columns) > 1:
        raise DatasetUsageError(
            f"{path}: expected one-hot rows of as many classes in y_train and y_test, "
            f"got {data['y_train'].shape} and {data['y_test'].shape}"
        )
    return max(*columns, *(1 + int(indices.max()) for indices in classes))


def _range(path: Path, declared: NDArray[Any] | None, arrays: list[Array]) -> tuple[float, float]:
    if declared is None:
        if arrays[0].dtype != np.uint8:
            raise DatasetUsageError(
                f"{path}: samples are floats: add an array 'range' with their lowest and highest value"
            )
        return 0.0, 255.0
    if declared.size != 2 or declared.dtype.kind not in "iuf" or not _has_span(declared.ravel()):
        raise DatasetUsageError(
            f"{path}: range: expected two numbers, low and high, finite in float32, got {declared.tolist()!s:.60}"
        )
    low, high = (float(v) for v in declared.ravel())
    for array in arrays:
        least, most = float(np.min(array)), float(np.max(array))
        if not (low <= least and most <= high):
            raise DatasetUsageError(
                f"{path}: expected values in the declared range {low:g}..{high:g}, got {least:g}..{most:g}"
            )
    return low, high


def _has_span(declared: NDArray[Any]) -> bool:
    """Whether samples can be scaled by high - low: 0 and infinity, in their float32, would leave nothing of them."""
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = declared.astype(np.float32)
        return bool(0 < high - low < np.inf)
