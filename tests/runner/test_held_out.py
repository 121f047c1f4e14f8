from pathlib import Path

import numpy as np
import pytest
from fake_tier import LABELS, spec

from branchy.errors import DatasetUsageError
from branchy.runner.held_out import load_held_out


def write(path: Path, **changes) -> str:
    x, y = np.zeros((3, 4, 4), np.uint8), np.arange(3)
    arrays = {"x_train": x, "y_train": y, "x_test": x, "y_test": y, "labels": np.array(LABELS), "range": [0, 16]}
    np.savez(path, **(arrays | changes))
    return str(path)


def test_samples_come_in_the_size_that_the_bundle_takes(tmp_path):
    data = load_held_out(write(tmp_path / "larger.npz"), spec())
    assert data.test[0][0].shape == spec().input.tensor.shape
    assert data.labels == LABELS


def test_labels_in_another_order_are_other_labels(tmp_path):
    with pytest.raises(DatasetUsageError, match="expected the bundle's classes zero, one, two, got two, one, zero"):
        load_held_out(write(tmp_path / "other.npz", labels=np.array(LABELS[::-1])), spec())


def test_colour_for_a_grey_bundle_is_refused(tmp_path):
    colour = np.zeros((3, 4, 4, 3), np.uint8)
    with pytest.raises(DatasetUsageError, match=r"expected samples \(2, 2, 1\) of uint8, .* got \(2, 2, 3\)"):
        load_held_out(write(tmp_path / "colour.npz", x_train=colour, x_test=colour), spec())
