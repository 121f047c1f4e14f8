from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from branchy.datasets import load
from branchy.errors import DatasetError, DatasetUsageError

Save = Callable[..., str]
HOT = np.eye(3)[np.arange(12) % 3]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Saves a good `.npz` of 3 classes with some arrays changed (None leaves one out); returns its path."""

    def write(**changed: Any) -> str:
        rng = np.random.default_rng(0)
        good: dict[str, Any] = {
            "x_train": rng.integers(0, 256, (12, 4, 5), dtype=np.uint8),
            "y_train": np.arange(12) % 3,
            "x_test": rng.integers(0, 256, (6, 4, 5), dtype=np.uint8),
            "y_test": np.arange(6) % 3,
        }
        good.update(changed)
        np.savez(tmp_path / "set.npz", **{k: v for k, v in good.items() if v is not None})
        return str(tmp_path / "set.npz")

    return write


def test_grey_samples_get_a_channel_and_classes_their_numbers(save: Save) -> None:
    data = load(save())
    assert (data.name, data.labels) == ("set", ("0", "1", "2"))
    assert (data.input.tensor.shape, data.input.tensor.dtype, data.input.channel_order) == ((4, 5, 1), "uint8", "L")
    assert (data.input.low, data.input.high) == (0.0, 255.0)
    assert (len(data.pool), len(data.test)) == (12, 6)


def test_the_test_part_is_the_test_arrays(save: Save) -> None:
    path = save()
    data, raw = load(path), np.load(path)
    samples, labels = data.test.read(np.arange(6))
    assert np.array_equal(samples[..., 0], raw["x_test"])
    assert np.array_equal(labels, raw["y_test"])
    assert np.array_equal(next(data.pool.batches(12))[0][..., 0], raw["x_train"])


def test_batches_hold_everything_once_in_order(save: Save) -> None:
    data = load(save())
    batches = list(data.pool.batches(5))
    assert [len(x) for x, _ in batches] == [5, 5, 2]
    assert np.concatenate([y for _, y in batches]).tolist() == data.pool.labels.tolist()


def test_floats_of_a_declared_range_stay_floats(save: Save) -> None:
    x = np.linspace(-1, 1, 240).reshape(12, 4, 5)
    data = load(save(x_train=x, x_test=x[:6], range=np.asarray([-1.0, 1.0])))
    assert data.input.tensor.dtype == "float32"
    assert (data.input.low, data.input.high) == (-1.0, 1.0)


def test_labels_may_have_names_and_columns(save: Save) -> None:
    data = load(save(labels=np.asarray(["a", "b", "c"]), y_train=(np.arange(12) % 3)[:, np.newaxis]))
    assert data.labels == ("a", "b", "c")
    assert data.pool.labels.shape == (12,)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "bool"])
def test_one_hot_labels_are_their_rows_classes(save: Save, dtype: str) -> None:
    indices, hot = load(save()), load(save(y_train=HOT.astype(dtype), y_test=HOT[:6].astype(dtype)))
    assert hot.labels == indices.labels
    for part, expected in ((hot.pool, indices.pool), (hot.test, indices.test)):
        assert part.labels.dtype == np.int64
        assert part.labels.tolist() == expected.labels.tolist()


def test_one_hot_columns_count_as_classes_that_have_no_sample(save: Save) -> None:
    hot = np.eye(5)[np.arange(12) % 3]
    assert load(save(y_train=hot, y_test=hot[:6])).labels == ("0", "1", "2", "3", "4")


def test_one_hot_labels_where_indices_were_declared_name_the_flag(save: Save) -> None:
    path = save(y_train=HOT, y_test=HOT[:6])
    with pytest.raises(DatasetUsageError, match=r"got one-hot rows \(12, 3\); give --label-mode categorical"):
        load(path, one_hot=False)


def test_wider_whole_numbers_become_uint8(save: Save) -> None:
    x = np.random.default_rng(0).integers(0, 256, (12, 4, 5, 3))
    data = load(save(x_train=x, x_test=x[:6]))
    assert (data.input.tensor.dtype, data.input.channel_order) == ("uint8", "RGB")


def test_samples_are_resized_when_asked(save: Save) -> None:
    assert load(save(), size=(8, 9)).test[0][0].shape == (8, 9, 1)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"y_test": None}, "got no y_test"),
        ({"x_train": np.zeros((12, 4))}, "expected shape"),
        ({"x_train": np.zeros((12, 4, 5, 2), np.uint8)}, "expected shape"),
        ({"x_train": np.full((12, 4, 5), 256)}, "whole numbers in 0..255"),
        ({"x_train": np.zeros((12, 4, 5), np.float32)}, "one shape and dtype"),
        ({"x_train": np.zeros((12, 4, 6), np.uint8)}, "one shape and dtype"),
        ({"x_train": np.zeros((11, 4, 5), np.uint8)}, "as many labels as samples"),
        ({"x_test": np.zeros((0, 4, 5), np.uint8), "y_test": np.zeros(0, int)}, "as many labels as samples, and some"),
        ({"x_train": np.zeros((12, 4, 5)), "x_test": np.zeros((6, 4, 5))}, "add an array 'range'"),
        ({"range": np.asarray([0, 16])}, "in the declared range 0..16"),
        ({"range": np.asarray([16, 0])}, "range: expected two numbers"),
        ({"range": np.asarray([0, np.nan])}, "range: expected two numbers"),
        ({"range": np.asarray([0, np.inf])}, "high, finite in float32, got [0.0, inf]"),
        ({"range": np.asarray([-np.inf, np.inf])}, "range: expected two numbers"),
        ({"range": np.asarray([np.inf, np.inf])}, "range: expected two numbers"),
        ({"range": np.asarray([0, 1e39])}, "range: expected two numbers"),
        ({"range": np.asarray([0, 255, 255])}, "range: expected two numbers"),
        ({"range": np.asarray(255)}, "range: expected two numbers, low and high, finite in float32, got 255"),
        ({"x_train": np.asarray(3)}, "x_train: expected shape (n, height, width)"),
        ({"y_train": np.asarray(3)}, "y_train: expected class indices, (n,) whole numbers, got int64 ()"),
        ({"y_test": np.asarray(3)}, "y_test: expected class indices, (n,) whole numbers, got int64 ()"),
        ({"y_train": np.arange(12) % 3 - 1}, "labels in 0..2, got -1"),
        ({"labels": np.asarray(["a", "b"])}, "labels in 0..1, got 2"),
        ({"labels": np.asarray(["a", "b", "b"])}, "different names"),
        ({"y_train": np.zeros(12, int), "y_test": np.zeros(6, int)}, "at least two classes, got 1"),
        ({"y_train": np.zeros(12)}, "whole numbers, got float64"),
        ({"y_train": np.zeros((12, 3), int)}, "single 1, got int64 (12, 3) with row 0 [0, 0, 0]"),
        ({"y_train": np.vstack([HOT[:11], [[1, 1, 0]]])}, "with row 11 [1.0, 1.0, 0.0]"),
        ({"y_train": np.vstack([HOT[:11], [[0.5, 0.5, 0]]])}, "with row 11 [0.5, 0.5, 0.0]"),
        ({"y_train": np.where(HOT == 1, np.nan, 0)}, "with row 0 [nan, 0.0, 0.0]"),
        ({"y_train": HOT[:, :, None]}, "expected class indices"),
        ({"y_train": HOT, "y_test": np.eye(4)[np.arange(6) % 3]}, "as many classes in y_train and y_test, got (12, 3)"),
    ],
)
def test_wrong_arrays_are_wrong_use(save: Save, changed: dict[str, Any], says: str) -> None:
    with pytest.raises(DatasetUsageError) as caught:
        load(save(**changed))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_not_a_number_is_outside_any_range(save: Save) -> None:
    x = np.zeros((12, 4, 5), np.float32)
    x[3, 2, 1] = np.nan
    with pytest.raises(DatasetUsageError, match="declared range"):
        load(save(x_train=x, x_test=x[:2], y_test=np.arange(2), range=np.asarray([0.0, 1.0])))


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk"])
def test_a_file_that_is_no_npz_is_a_failure(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"expected an \.npz file"):
        load(str(path))


def test_pickled_objects_are_never_loaded(save: Save) -> None:
    with pytest.raises(DatasetError, match="without pickled objects"):
        load(save(labels=np.asarray([{"a": 1}, "b", "c"], dtype=object)))
