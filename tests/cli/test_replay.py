from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from branchy.reports.csv import CsvReport, Row, TierCells

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    edge, cloud = TierCells(1, 0.001, 0.002, "edge", 0.6, 500), TierCells(2, 0.001, 0.002, "cloud", 0.9, 0)
    with CsvReport(tmp_path / "r.csv", ("edge", "cloud")) as report:
        report.write(Row(0, 2, 0.01, "a", {"Edge": edge, "Cloud": cloud}, "cloud", "final", 0.9, 500))
    return tmp_path / "r.csv"


def test_it_prints_recorded_and_replayed_side_by_side(run: Run, recorded: Path) -> None:
    code, out, _ = run("replay", recorded, "--threshold", "edge=0.5")
    assert code == 0
    assert "replayed with edge >= 0.5" in out
    assert "1 would be wrong that were right" in out


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        (["--threshold", "high"], 2, "threshold: expected one number, or STAGE=NUMBER once a stage, got high"),
        (["--threshold", "cloud=0.5"], 2, "threshold of cloud: expected an exit that sends on, edge"),
    ],
)
def test_wrong_use_is_one_line(run: Run, recorded: Path, options: list[str], code: int, line: str) -> None:
    got, out, err = run("replay", recorded, *options)
    assert (got, out) == (code, "")
    assert err.splitlines() == [f"branchy: {line}"]


def test_a_csv_of_another_kind_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("a,b\n1,2\n")
    code, out, err = run("replay", tmp_path / "r.csv", "--threshold", "0.5")
    assert (code, out) == (1, "")
    assert "expected columns with ';' between" in err
    assert len(err.splitlines()) == 1
