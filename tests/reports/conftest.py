from pathlib import Path

import pytest

from branchy.reports.csv import CsvReport, Results, Row, TierCells, read_csv

CASCADE = [
    Row(0, 1, 0.002, "a0", {"Edge": TierCells(1, 0.0002, 0.001)}, "edge", "confident", 0.9, 0),
    Row(1, 1, 0.004, "a1", {"Edge": TierCells(0, 0.0002, 0.001)}, "edge", "confident", 0.9, 0),
    Row(
        2, 2, 0.020, "a2", {"Edge": TierCells(0, 0.0002, 0.018), "Cloud": TierCells(2, 0.001, 0.004)},
        "cloud", "final", 0.8, 900,
    ),
    Row(
        3, 2, 1.000, "a3", {"Edge": TierCells(2, 0.0002, 0.950)}, "edge", "timeout", 0.5, 900,
    ),
    Row(4, 0, 0.010, "a4", {}, "edge", "overload", None, 0),
    Row(5, 0, None, "a5"),
]  # fmt: skip
FULL = [Row(i, 1, 0.005, f"f{i}", {"Full": TierCells(1, 0.002, 0.003)}, "full", "final", 0.99, 400) for i in range(2)]


def _write(path: Path, tiers: tuple[str, ...], rows: list[Row]) -> Path:
    with CsvReport(path, tiers) as report:
        for row in rows:
            report.write(row)
    return path


@pytest.fixture
def cascade_csv(tmp_path) -> Path:
    """Six requests: two confident at the edge (one wrong), one final, one timeout, one refused, one unanswered."""
    return _write(tmp_path / "cascade.csv", ("edge", "cloud"), CASCADE)


@pytest.fixture
def full_csv(tmp_path) -> Path:
    """Two requests to the full model, both right."""
    return _write(tmp_path / "full-only.csv", ("full",), FULL)


@pytest.fixture
def unanswered_csv(tmp_path) -> Path:
    """Two requests that nobody answered."""
    return _write(tmp_path / "lost.csv", ("edge",), [Row(i, 1, None, f"u{i}") for i in range(2)])


@pytest.fixture
def runs(cascade_csv, full_csv) -> dict[str, Results]:
    return {path.stem: read_csv(path) for path in (cascade_csv, full_csv)}
