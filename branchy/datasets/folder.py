"""A folder with one sub-folder a class, streamed: only paths are held in memory."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from branchy.core.cascade import Array, InputSpec, TensorSpec
from branchy.datasets import images
from branchy.datasets.dataset import Dataset, Indices, Part
from branchy.datasets.splits import stratified
from branchy.errors import DatasetError, DatasetUsageError

log = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
DEFAULT_SIZE = (180, 180)
TEST_SHARE = 0.2
TEST_SEED = 0
"""Of the held-out fifth; fixed, so that a device and an evaluation take what no training saw."""


@dataclass(frozen=True)
class FileSamples:
    """Image files, decoded when they are read."""

    paths: tuple[Path, ...]
    spec: InputSpec

    def read(self, index: int) -> Array:
        """One image, (height, width, 3) uint8; raises `DatasetError` naming the file."""
        try:
            return images.decode(self.paths[index], self.spec)
        except DatasetError as error:
            raise DatasetError(f"{self.paths[index]}: {error}") from None

    def raw(self, index: int) -> bytes:
        """One file as it is; raises `DatasetError` naming it."""
        try:
            return self.paths[index].read_bytes()
        except OSError as error:
            raise DatasetError(f"{self.paths[index]}: cannot be read: {error.strerror or error}") from None


def load_folder(root: Path, size: tuple[int, int] | None, *, test_only: bool) -> Dataset:
    """A folder of images, one sub-folder a class, as RGB; a fixed stratified fifth is held out for testing.

    Args:
        root: the folder; the classes are its sub-folders in the order of their names.
        size: (height, width) of a sample; 180 x 180 unless told.
        test_only: only the test part's files are checked, as a device needs no others.

    Raises:
        DatasetUsageError: no sub-folders, or one without images, or only one class.
        DatasetError: no image of some class can be read.
        MissingExtraError: Pillow is not installed.
    """
    images.require_pillow()
    labels, paths, classes = _scan(root)
    spec = InputSpec(TensorSpec("sample", (*(size or DEFAULT_SIZE), 3), "uint8"), low=0.0, high=255.0)
    pool, test = stratified(classes, (1 - TEST_SHARE, TEST_SHARE), TEST_SEED)
    used = test if test_only else np.arange(len(paths))
    damaged = _damaged(paths, used)
    _report(root, paths, classes, labels, used, damaged)
    samples = FileSamples(paths, spec)

    def part(indices: Indices) -> Part:
        good = indices[~np.isin(indices, list(damaged))]
        return Part(samples, good, classes[good])

    skipped = tuple(f"{paths[i]}: {why}" for i, why in damaged.items())
    return Dataset(root.resolve().name, labels, spec, part(pool), part(test), skipped)


def _scan(root: Path) -> tuple[tuple[str, ...], tuple[Path, ...], Indices]:
    """Class names, image files in order, and the class index of each."""
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise DatasetUsageError(f"{root}: expected a folder with one sub-folder of images a class, got no sub-folder")
    paths: list[Path] = []
    classes: list[int] = []
    for index, folder in enumerate(folders):
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not files:
            raise DatasetUsageError(
                f"{folder}: expected images ({', '.join(SUFFIXES)}), got none; add some or remove it"
            )
        paths += files
        classes += [index] * len(files)
    return tuple(f.name for f in folders), tuple(paths), np.asarray(classes, dtype=np.int64)


def _damaged(paths: tuple[Path, ...], used: Indices) -> dict[int, str]:
    """Why some files cannot be read, by index."""

    def why(index: int) -> str | None:
        try:
            images.check(paths[index])
        except DatasetError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = tqdm(pool.map(why, used), total=len(used), desc="checking images", unit="image", leave=False)
        return {int(i): reason for i, reason in zip(used, found, strict=True) if reason is not None}


def _report(
    root: Path,
    paths: tuple[Path, ...],
    classes: Indices,
    labels: tuple[str, ...],
    used: Indices,
    damaged: dict[int, str],
) -> None:
    if len(damaged) == len(used):
        raise DatasetError(f"{root}: none of {len(used)} images can be read; the first is {paths[used[0]]}")
    for index, reason in damaged.items():
        log.warning("skipped %s: %s", paths[index], reason)
    if damaged:
        log.warning("%s: skipped %d of %d images that cannot be read", root, len(damaged), len(used))
    good = np.setdiff1d(used, list(damaged))
    for index in np.setdiff1d(classes[used], classes[good]):
        raise DatasetError(f"{root / labels[index]}: no image of this class can be read; replace them or remove it")
