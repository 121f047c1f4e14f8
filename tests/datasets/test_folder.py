from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from branchy.datasets import load
from branchy.errors import DatasetError, DatasetUsageError

MakeFolder = Callable[..., Path]


def test_sub_folders_are_the_classes_in_the_order_of_their_names(make_folder: MakeFolder) -> None:
    data = load(str(make_folder("dog", "cat")), size=(6, 5))
    assert (data.name, data.labels) == ("pets", ("cat", "dog"))
    assert data.input.tensor.shape == (6, 5, 3)
    for part in (data.pool, data.test):
        for sample, label in part:  # make_folder's red tells the class in the order of creation
            assert sample.dtype == np.uint8
            assert sample[0, 0, 0] == (0 if data.labels[label] == "dog" else 40)


def test_a_folder_is_resized_to_180_unless_told(make_folder: MakeFolder) -> None:
    assert load(str(make_folder("a", "b"))).test[0][0].shape == (180, 180, 3)


def test_a_fixed_fifth_of_each_class_is_held_out(make_folder: MakeFolder) -> None:
    root = str(make_folder("a", "b", each=20))
    first, again = load(root, size=(4, 4)), load(root, size=(8, 8))
    assert np.bincount(first.test.labels).tolist() == [4, 4]
    assert not set(first.test.indices) & set(first.pool.indices)
    assert first.test.indices.tolist() == again.test.indices.tolist()


def test_damaged_images_are_named_skipped_and_counted(
    make_folder: MakeFolder, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_folder("a", "b")
    (root / "a" / "003.png").write_bytes(b"broken")
    with caplog.at_level(logging.WARNING, "branchy"):
        data = load(str(root), size=(4, 4))
    assert len(data.pool) + len(data.test) == 19
    assert [Path(line.partition(":")[0]).name for line in data.skipped] == ["003.png"]
    assert "003.png" in caplog.text
    assert "skipped 1 of 20" in caplog.text


def test_a_damaged_image_changes_no_other_image_s_part(make_folder: MakeFolder) -> None:
    root = make_folder("a", "b")
    before = load(str(root), size=(4, 4))
    (root / "a" / "003.png").write_bytes(b"broken")
    after = load(str(root), size=(4, 4))
    assert set(after.test.indices) <= set(before.test.indices)
    assert set(after.pool.indices) <= set(before.pool.indices)


def test_for_a_device_only_the_test_part_is_checked(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from branchy.datasets import images

    checked: list[Path] = []
    monkeypatch.setattr(images, "check", checked.append)
    data = load(str(make_folder("a", "b")), size=(4, 4), test_only=True)
    assert len(checked) == len(data.test)


def test_images_are_read_only_when_they_are_asked_for(make_folder: MakeFolder) -> None:
    root = make_folder("a", "b")
    data = load(str(root), size=(4, 4))
    for path in root.rglob("*.png"):
        path.unlink()
    with pytest.raises(DatasetError, match="png"):
        data.test[0]


def test_other_files_and_hidden_folders_are_left_alone(make_folder: MakeFolder) -> None:
    root = make_folder("a", "b")
    (root / "README.txt").write_text("hello")
    (root / "a" / "notes.txt").write_text("hello")
    (root / ".cache").mkdir()
    data = load(str(root), size=(4, 4))
    assert (data.labels, data.skipped) == (("a", "b"), ())


def test_an_empty_folder_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(DatasetUsageError, match="one sub-folder of images a class, got no sub-folder"):
        load(str(tmp_path))


def test_a_class_without_images_is_wrong_use(make_folder: MakeFolder) -> None:
    root = make_folder("a", "b")
    (root / "c").mkdir()
    with pytest.raises(DatasetUsageError, match=r"c: expected images .*, got none"):
        load(str(root))


def test_one_class_only_is_wrong_use(make_folder: MakeFolder) -> None:
    with pytest.raises(DatasetUsageError, match="at least two classes, got 1: only"):
        load(str(make_folder("only")))


def test_only_damaged_images_are_a_failure(make_folder: MakeFolder) -> None:
    root = make_folder("a", "b")
    for path in root.rglob("*.png"):
        path.write_bytes(b"broken")
    with pytest.raises(DatasetError, match="none of 20 images can be read"):
        load(str(root))


def test_a_class_of_damaged_images_only_is_a_failure(make_folder: MakeFolder) -> None:
    root = make_folder("a", "b")
    for path in (root / "b").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(DatasetError, match="b: no image of this class can be read"):
        load(str(root))
