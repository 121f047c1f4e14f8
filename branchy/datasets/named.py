"""Data sets that go by a name: scikit-learn's digits, and three that lie in `data/` as `.npz` once fetched."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from branchy.datasets.arrays import in_memory, load_npz
from branchy.datasets.dataset import Dataset
from branchy.datasets.splits import stratified
from branchy.errors import DatasetError, DatasetUsageError, MissingExtraError

DIGITS = "digits"
DIGITS_TEST_SHARE = 0.2
DIGITS_TEST_SEED = 0
"""The held-out fifth of the digits is fixed by this seed and the same everywhere."""

DATA = Path("data")
FETCHED: dict[str, tuple[str, tuple[str, ...]]] = {
    "mnist": ("mnist", tuple("0123456789")),
    "fashion-mnist": (
        "fashion_mnist",
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle-boot"),
    ),
    "cifar10": (
        "cifar10",
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
}
"""By name: Keras' own name for it, and the classes' names, which the bundle that comes with branchy has too."""

NAMES = (DIGITS, *FETCHED)


def load_named(name: str, size: tuple[int, int] | None) -> Dataset:
    """A data set by its name.

    Raises:
        DatasetUsageError: it is not in `data/`; the message has the line that fetches it.
        MissingExtraError: the digits, where scikit-learn is not installed.
    """
    if name == DIGITS:
        return load_digits(size)
    keras_name, labels = FETCHED[name]
    path = DATA / f"{name}.npz"
    if not path.is_file():
        raise DatasetUsageError(
            f"no {path}; with branchy[train] and open internet this line fetches it: {fetch_line(keras_name, path)}"
        )
    return load_npz(path, size, name=name, labels=labels)


def fetch_line(keras_name: str, path: Path) -> str:
    """A shell line that downloads a data set with `keras.datasets` and writes the `.npz`."""
    return (
        f'mkdir -p {path.parent} && python -c "import keras, numpy; (a, b), (c, d) = keras.datasets.{keras_name}'
        f".load_data(); numpy.savez_compressed('{path}', x_train=a, y_train=b, x_test=c, y_test=d)\""
    )


def load_digits(size: tuple[int, int] | None) -> Dataset:
    """The 1,797 handwritten digits that scikit-learn ships: (8, 8, 1), uint8 in 0..16.

    Its file is read without importing scikit-learn, which would bring SciPy and pandas into the
    memory of a device.
    """
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise MissingExtraError("the data set digits", "train")
    path = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    except (OSError, EOFError, ValueError) as error:
        raise DatasetError(f"cannot read scikit-learn's digits: {error}; install scikit-learn again") from None
    classes = table[:, -1].astype(np.int64)
    samples = table[:, :-1].reshape(-1, 8, 8, 1)
    pool, test = stratified(classes, (1 - DIGITS_TEST_SHARE, DIGITS_TEST_SHARE), DIGITS_TEST_SEED)
    return in_memory(DIGITS, tuple("0123456789"), (samples,), classes, (0.0, 16.0), (pool, test), size)
