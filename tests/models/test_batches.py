from __future__ import annotations

from typing import Any

import numpy as np

from branchy.core.cascade import Array, TensorSpec
from branchy.datasets import Part
from branchy.models.batches import balanced, order, samples_in_order, training_batches

SPEC = TensorSpec("sample", (1,), "float32")


class _Numbers:
    def read(self, index: int) -> Array:
        return np.array([index], np.float32)


def _part(n: int = 23) -> Part:
    return Part(_Numbers(), 100 + np.arange(n), np.arange(n) % 3)


def _epochs(first: int, end: int, **changed: Any) -> list[tuple[list[float], list[int], list[float]]]:
    options: dict[str, Any] = {"batch_size": 5, "seed": 1, "augment": None, "class_weights": None}
    options |= {"whole_batches": False, **changed}
    batches = training_batches(_part(), SPEC, epochs=(first, end), **options)
    return [(x.numpy()[:, 0].tolist(), y.numpy().tolist(), w.numpy().tolist()) for x, y, w in batches]


def test_each_epoch_has_every_sample_once_in_an_order_of_its_own() -> None:
    batches = _epochs(0, 2)
    assert [len(x) for x, _, _ in batches] == [5, 5, 5, 5, 3] * 2
    first, second = ([value for x, _, _ in batches[i : i + 5] for value in x] for i in (0, 5))
    assert sorted(first) == sorted(second) == [100.0 + i for i in range(23)]
    assert first != second
    assert all((int(value) - 100) % 3 == label for x, y, _ in batches for value, label in zip(x, y, strict=True))


def test_a_pipeline_that_begins_later_goes_on_as_the_one_from_the_start() -> None:
    def augment(samples: Array, indices: Array, epoch: int) -> Array:
        return samples + epoch / 8

    assert _epochs(0, 3, augment=augment)[10:] == _epochs(2, 3, augment=augment)
    assert _epochs(2, 3, augment=augment) != _epochs(2, 3, augment=augment, seed=2)


def test_the_order_follows_from_the_samples_indices_wherever_they_stand() -> None:
    indices = np.arange(50)
    mixed = np.random.default_rng(0).permutation(50)
    assert np.array_equal(indices[order(indices, 1, 2)], indices[mixed][order(indices[mixed], 1, 2)])


def test_a_batch_s_weights_are_its_classes_over_its_size() -> None:
    weights = np.array([1, 2, 4], np.float32)
    for _, y, w in _epochs(0, 1, class_weights=weights):
        assert np.allclose(w, weights[y] / len(y))
    assert all(np.allclose(w, 1 / len(y)) for _, y, w in _epochs(0, 1))


def test_balanced_weights_give_each_class_the_same_say() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [3])
    weights = balanced(labels, 5)
    said = np.bincount(labels, weights=weights[labels], minlength=5)
    assert np.allclose(said, [10 / 3, 10 / 3, 0, 10 / 3, 0])


def test_whole_batches_leave_out_what_is_left_of_each_epoch() -> None:
    assert [len(x) for x, _, _ in _epochs(0, 2, whole_batches=True)] == [5] * 8


def test_samples_in_order_are_all_of_them_in_order() -> None:
    found = np.concatenate([x.numpy() for x in samples_in_order(_part(), SPEC, 5)])
    assert found[:, 0].tolist() == [100.0 + i for i in range(23)]
