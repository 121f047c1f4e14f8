from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from branchy.datasets import load
from branchy.errors import DatasetUsageError, MissingExtraError


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    data, original = load("digits"), load_digits()
    assert data.labels == tuple("0123456789")
    assert (data.input.tensor.shape, data.input.tensor.dtype) == ((8, 8, 1), "uint8")
    assert (data.input.low, data.input.high) == (0.0, 16.0)
    assert len(data.pool) + len(data.test) == 1797
    for part in (data.pool, data.test):
        samples, labels = part.read(np.arange(len(part)))
        assert np.array_equal(samples[..., 0], original.images[part.indices])
        assert np.array_equal(labels, original.target[part.indices])


def test_a_fifth_of_each_digit_is_held_out() -> None:
    data = load("digits")
    counts = np.bincount(np.concatenate([data.pool.labels, data.test.labels]))
    assert np.abs(np.bincount(data.test.labels) - counts / 5).max() <= 1


def test_reading_digits_loads_neither_scikit_learn_nor_pandas() -> None:
    code = "import sys; from branchy.datasets import load; load('digits'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "branchy.datasets.named" in loaded
    assert not {"sklearn", "scipy", "pandas", "tensorflow", "keras", "PIL"} & set(loaded)


def test_without_scikit_learn_the_install_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"branchy\[train\]"):
        load("digits")


def test_fetched_sets_lie_in_data_and_have_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    x, y = np.zeros((20, 28, 28), np.uint8), np.arange(20) % 10
    np.savez(tmp_path / "data" / "fashion-mnist.npz", x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])
    data = load("fashion-mnist")
    assert (data.name, data.labels[9], data.input.tensor.shape) == ("fashion-mnist", "Ankle-boot", (28, 28, 1))


def test_a_set_that_is_not_there_names_the_line_that_fetches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetUsageError) as caught:
        load("cifar10")
    line = str(caught.value).partition("fetches it: ")[2]
    # The line must work in a shell as it stands; keras.datasets is stood in for, as tests have no internet.
    (tmp_path / "keras.py").write_text(
        "import numpy as np\n"
        "def _load():\n"
        "    x = np.arange(20 * 48, dtype=np.uint8).reshape(20, 4, 4, 3); y = np.arange(20)[:, None] % 10\n"
        "    return (x, y), (x[:10], y[:10])\n"
        "class datasets:\n"
        "    class cifar10:\n"
        "        load_data = staticmethod(_load)\n"
    )
    line = line.replace("python", sys.executable, 1)
    subprocess.run(line, shell=True, check=True, cwd=tmp_path)
    assert load("cifar10").labels[0] == "airplane"


def test_an_unknown_name_lists_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(DatasetUsageError, match=r"no data set 'digit': .*digits, mnist.*; found nothing there"):
        load("digit")
    (tmp_path / "set.csv").write_text("1;2")
    with pytest.raises(DatasetUsageError, match="found a file of another kind"):
        load(str(tmp_path / "set.csv"))


def test_a_size_below_one_is_wrong_use() -> None:
    with pytest.raises(DatasetUsageError, match="at least 1, got 0 x 8"):
        load("digits", size=(0, 8))
