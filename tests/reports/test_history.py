from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from branchy.reports.history import plot, write_csv

HISTORY = {
    "loss": [2.0, 1.0],
    "val_loss": [2.5, 0.1 + 0.2],
    "edge_loss": [1.5, 0.7],
    "val_edge_loss": [1.6, 0.8],
    "edge_accuracy": [0.5, 0.9],
    "val_edge_accuracy": [0.4, 0.8],
    "cloud_loss": [0.5, 0.3],
    "val_cloud_loss": [0.9, 0.4],
    "cloud_accuracy": [0.6, 1.0],
    "val_cloud_accuracy": [0.5, 0.9],
}


def test_the_csv_has_a_row_an_epoch_and_every_digit(tmp_path: Path) -> None:
    write_csv(tmp_path / "history.csv", HISTORY)
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    assert [row.pop("epoch") for row in rows] == ["1", "2"]
    assert {name: [float(row[name]) for row in rows] for name in rows[0]} == HISTORY


def test_columns_of_different_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        write_csv(tmp_path / "history.csv", {**HISTORY, "loss": [1.0]})


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), dtype=int)


@pytest.mark.parametrize("what", ["accuracy", "loss"])
@pytest.mark.parametrize("exit_", ["edge", "cloud"])
def test_every_exit_is_drawn(what: str, exit_: str, tmp_path: Path) -> None:
    changed = {**HISTORY, f"val_{exit_}_{what}": [0.41, 0.55]}
    for name, history in (("first", HISTORY), ("second", changed)):
        (tmp_path / name).mkdir()
        plot(tmp_path / name, history, ["edge", "cloud"])
    first, second = (_pixels(tmp_path / name / f"{what}.png") for name in ("first", "second"))
    assert first.std() > 0
    assert first.shape != second.shape or (first != second).any()
