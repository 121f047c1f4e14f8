"""Data for the bundle of toy_bundle.py that nothing was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import toy_bundle as toy

from branchy.datasets import Dataset, load


def toy_dataset(path: Path, n: int) -> Dataset:
    """Whose true class is the full model's, but for every twentieth sample; sorted by class, as folders are."""
    batch = toy.samples(n, seed=1)
    classes = toy.cloud_logits(batch).argmax(axis=1)
    classes[::20] = (classes[::20] + 1) % 3
    order = np.argsort(classes, kind="stable")
    arrays = {"x_train": batch[order], "y_train": classes[order], "x_test": toy.samples(3), "y_test": np.arange(3)}
    np.savez(path, **arrays, labels=np.array(toy.LABELS), range=np.array([0, 16]))
    return load(str(path))
