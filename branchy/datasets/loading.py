"""Finding out what a data set's name or path is."""

from __future__ import annotations

from pathlib import Path

from branchy.datasets.arrays import load_npz
from branchy.datasets.dataset import Dataset
from branchy.datasets.folder import load_folder
from branchy.datasets.named import NAMES, load_named
from branchy.errors import DatasetError, DatasetUsageError


def load(
    name_or_path: str, *, size: tuple[int, int] | None = None, test_only: bool = False, one_hot: bool = True
) -> Dataset:
    """A data set from a folder with one sub-folder a class, an `.npz` file, or a name.

    Args:
        name_or_path: a path, or one of `digits`, `fashion-mnist`, `mnist`, `cifar10`.
        size: (height, width) that samples are resized to; unless told a folder's are 180 x 180,
            others as they are.
        test_only: leave the files of a folder that are not for testing unchecked, which saves a
            device the time; the pool may then hold damaged images.
        one_hot: whether the labels of an `.npz` may be one-hot rows.

    Returns:
        The data set; a folder's images are read when they are asked for, the rest is in memory.

    Raises:
        DatasetUsageError: there is no such data set, or it is not laid out as expected.
        DatasetError: it cannot be read, or nothing in it can.
        MissingExtraError: an optional part is needed to read it.
    """
    if size is not None and min(size) < 1:
        raise DatasetUsageError(f"expected a height and width of at least 1, got {size[0]} x {size[1]}")
    if name_or_path in NAMES:
        return load_named(name_or_path, size)
    path = Path(name_or_path)
    try:
        if path.is_dir():
            return load_folder(path, size, test_only=test_only)
        if path.is_file() and path.suffix == ".npz":
            return load_npz(path, size, one_hot=one_hot)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from None
    found = "a file of another kind" if path.exists() else "nothing there"
    raise DatasetUsageError(
        f"no data set '{name_or_path}': expected a folder with one sub-folder of images a class, an .npz file, "
        f"or one of {', '.join(NAMES)}; found {found}"
    )
