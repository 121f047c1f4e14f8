from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest

from branchy.core.cascade import Array
from branchy.datasets import Dataset, load
from branchy.datasets.dataset import Samples
from branchy.errors import UsageError
from branchy.runner.parts import HELD_OUT, divide, tuning_parts
from branchy.store.bundle import Bundle


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


def test_the_parts_are_disjoint_and_are_all_there_is(digits: Dataset) -> None:
    parts = divide(digits, 0.2, seed=1)
    assert list(parts) == ["train", *HELD_OUT, "test"]
    together = np.concatenate([part.indices for part in parts.values()])
    assert sorted(together.tolist()) == list(range(1797))
    for name, share in HELD_OUT.items():
        assert len(parts[name]) == pytest.approx(0.2 * share * len(digits.pool), abs=6)


def test_the_same_seed_gives_the_same_parts_and_another_others(digits: Dataset) -> None:
    first, again, other = (divide(digits, 0.2, seed)["certify"].indices.tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_what_certifies_is_drawn_without_regard_to_the_classes(digits: Dataset) -> None:
    """Stratified, a class would have the same number in every draw."""
    counts = [np.bincount(divide(digits, 0.2, seed)["certify"].labels, minlength=10) for seed in range(30)]
    assert np.std([count[0] for count in counts]) > 1.5


def test_a_training_s_own_data_gives_the_parts_that_it_left(digits_bundle: Bundle, digits: Dataset) -> None:
    tune, certify = tuning_parts(digits_bundle, digits, unseen=False, seed=5)
    splits = digits_bundle.manifest.splits
    assert (len(tune), len(certify)) == (splits["tune"].samples, splits["certify"].samples)
    parts = divide(digits, 0.2, seed=0)
    assert tune.indices.tolist() == parts["tune"].indices.tolist()
    assert certify.indices.tolist() == parts["certify"].indices.tolist()


def test_other_data_is_refused_unless_none_of_it_was_trained_on(digits_bundle: Bundle, digits: Dataset) -> None:
    fewer = replace(digits, pool=digits.pool.take(np.arange(1000)))
    with pytest.raises(
        UsageError, match="so what was trained on cannot be left out; if none of its samples were, pass"
    ):
        tuning_parts(digits_bundle, fewer, unseen=False, seed=0)
    tune, certify = tuning_parts(digits_bundle, fewer, unseen=True, seed=0)
    assert sorted([*tune.indices, *certify.indices]) == sorted(fewer.pool.indices)
    assert len(certify) > len(tune) > 300


def test_a_bundle_that_was_not_trained_takes_unseen_data_only(toy_bundle: Bundle, digits: Dataset) -> None:
    with pytest.raises(UsageError, match="pass --unseen"):
        tuning_parts(toy_bundle, digits, unseen=False, seed=0)


def test_test_samples_are_never_tuned_with(digits_bundle: Bundle, toy_bundle: Bundle, digits: Dataset) -> None:
    for bundle, unseen in ((digits_bundle, False), (toy_bundle, True)):
        for part in tuning_parts(bundle, digits, unseen=unseen, seed=0):
            assert not set(part.indices) & set(digits.test.indices)


def test_what_was_trained_on_is_not_taken_for_unseen(digits_bundle: Bundle, digits: Dataset) -> None:
    with pytest.raises(UsageError, match="the bundle was trained on it; leave --unseen out"):
        tuning_parts(digits_bundle, digits, unseen=True, seed=0)


@dataclass(frozen=True)
class Moved:
    """A folder that lost its first file and got another at its end: each number means the file behind it."""

    samples: Samples

    def read(self, index: int) -> Array:
        return self.samples.read(index + 1)

    def raw(self, index: int) -> bytes:
        return self.samples.raw(index + 1)


def test_samples_that_moved_are_not_those_that_training_left(digits_bundle: Bundle, digits: Dataset) -> None:
    """Divided by their numbers they look the same, and most of them were trained on."""
    moved = replace(digits, pool=replace(digits.pool, samples=Moved(digits.pool.samples)))
    with pytest.raises(UsageError, match="is not in it as it was"):
        tuning_parts(digits_bundle, moved, unseen=False, seed=0)


def test_a_label_that_was_changed_is_noticed(digits_bundle: Bundle, digits: Dataset) -> None:
    first = tuning_parts(digits_bundle, digits, unseen=False, seed=0)[1].indices[0]
    labels = np.where(digits.pool.indices == first, (digits.pool.labels + 1) % 10, digits.pool.labels)
    with pytest.raises(UsageError, match="is not in it as it was"):
        tuning_parts(digits_bundle, replace(digits, pool=replace(digits.pool, labels=labels)), unseen=False, seed=0)


def test_parts_of_nothing_are_refused(toy_bundle: Bundle, digits: Dataset) -> None:
    for n in (0, 1):
        small = replace(digits, pool=digits.pool.take(np.arange(n)))
        with pytest.raises(UsageError, match="expected samples to tune and to certify with"):
            tuning_parts(toy_bundle, small, unseen=True, seed=0)


def test_seeds_divide_unseen_data_differently(toy_bundle: Bundle, digits: Dataset) -> None:
    found = [tuning_parts(toy_bundle, digits, unseen=True, seed=seed)[1].indices.tolist() for seed in (0, 1)]
    assert all(a != b for a, b in itertools.combinations(found, 2))
