from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from branchy.errors import BranchyError, UsageError
from branchy.reports.folder import csv_bytes, make_folder, write_files


def test_a_folder_that_cannot_be_written_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write plots to .*file/x: Not a directory; name another directory"):
        make_folder(tmp_path / "file" / "x", "plots")


def test_files_replace_older_ones_and_nothing_else_is_left(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    assert write_files(tmp_path, {"a": b"new", "b": b""}) == [tmp_path / "a", tmp_path / "b"]
    assert (tmp_path / "a").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_file_that_cannot_be_written_is_one_line_and_leaves_no_half(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(BranchyError, match=r"^cannot write .*/a: Is a directory$"):
        write_files(tmp_path, {"a": b"new"})
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_csv_has_floats_to_the_last_bit_and_nothing_for_what_is_not_known() -> None:
    row = (1, 0.1 + 0.2, None, float("nan"), np.float64(0.5), "a;b")
    assert csv_bytes(("a", "b"), [row]) == b'a;b\n1;0.30000000000000004;;;0.5;"a;b"\n'
