from __future__ import annotations

import numpy as np
import pytest

from branchy.core.cascade import Array, InputSpec, TensorSpec
from branchy.models.augment import AUGMENTATIONS, Augmentation

SIDE = 16


def _spec(dtype: str, low: float = 0.0, high: float = 255.0) -> InputSpec:
    return InputSpec(TensorSpec("sample", (SIDE, SIDE, 3), dtype), low, high)


def _samples(count: int = 64, dtype: str = "uint8") -> Array:
    return np.random.default_rng(0).integers(1, 255, (count, SIDE, SIDE, 3)).astype(dtype)


def _done(name: str, samples: Array, epoch: int = 0, seed: int = 0) -> Array:
    return Augmentation([name], _spec(samples.dtype.name), seed)(samples, np.arange(len(samples)), epoch)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_what_becomes_of_a_sample_depends_on_seed_epoch_and_index_alone(name: str, dtype: str) -> None:
    samples, indices = _samples(dtype=dtype), np.arange(64) * 7
    augment = Augmentation([name], _spec(dtype), seed=3)
    together = augment(samples, indices, 5)
    order = np.random.default_rng(1).permutation(64)
    one_by_one = [augment(samples[i : i + 1], indices[i : i + 1], 5)[0] for i in order]
    assert np.array_equal(together[order], one_by_one)
    others = [augment(samples, indices, 6), Augmentation([name], _spec(dtype), 4)(samples, indices, 5)]
    assert not any(np.array_equal(together, other) for other in others)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize(("dtype", "low", "high"), [("uint8", 0, 16), ("float32", -2.5, 1)])
def test_samples_keep_their_shape_dtype_and_range(name: str, dtype: str, low: float, high: float) -> None:
    samples = np.random.default_rng(0).uniform(low, high, (32, SIDE, SIDE, 3)).astype(dtype)
    found = Augmentation([name], _spec(dtype, low, high), 0)(samples, np.arange(32), 0)
    assert (found.shape, found.dtype) == (samples.shape, samples.dtype)
    assert low <= found.min() <= found.max() <= high


def test_flip_mirrors_about_half_of_the_samples() -> None:
    samples = _samples(400)
    found = _done("flip", samples)
    mirrored = (found == samples[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (mirrored | (found == samples).all(axis=(1, 2, 3))).all()
    assert 140 < mirrored.sum() < 260


def test_shift_moves_whole_samples_by_up_to_an_eighth_and_the_lowest_value_comes_in() -> None:
    samples = _samples(200)
    found = _done("shift", samples)
    seen = set()
    for before, after in zip(samples, found, strict=True):
        moves = [
            (dy, dx) for dy in range(-2, 3) for dx in range(-2, 3) if np.array_equal(_moved(before, dy, dx), after)
        ]
        assert len(moves) == 1
        seen.add(moves[0])
    assert len(seen) == 25


def _moved(sample: Array, dy: int, dx: int) -> Array:
    wide = np.pad(sample, ((2, 2), (2, 2), (0, 0)))
    return wide[2 - dy : 2 - dy + SIDE, 2 - dx : 2 - dx + SIDE]


def test_erase_covers_a_square_of_a_quarter_of_the_sides() -> None:
    for sample in _done("erase", _samples()):
        rows, columns = np.nonzero((sample == 0).all(axis=-1))
        assert len(rows) == 16
        assert np.ptp(rows) == np.ptp(columns) == 3


def test_brightness_adds_the_same_to_all_of_a_sample_and_contrast_keeps_its_mean() -> None:
    samples = np.random.default_rng(0).uniform(100, 150, (64, SIDE, SIDE, 3)).astype("float32")
    added = _done("brightness", samples) - samples
    assert np.ptp(added.reshape(64, -1), axis=1).max() < 1e-3
    assert -51 <= added.min() < -30 < 30 < added.max() <= 51
    spread = _done("contrast", samples)
    assert np.allclose(spread.mean(axis=(1, 2, 3)), samples.mean(axis=(1, 2, 3)), atol=1e-2)
    factors = spread.std(axis=(1, 2, 3)) / samples.std(axis=(1, 2, 3))
    assert 0.74 < factors.min() < 0.9 < 1.1 < factors.max() < 1.26


def test_several_are_done_in_the_order_named() -> None:
    samples, indices = _samples(), np.arange(64)
    both = Augmentation(["shift", "flip"], _spec("uint8"), 0)(samples, indices, 0)
    assert np.array_equal(both, _done("flip", _done("shift", samples)))
