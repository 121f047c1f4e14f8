"""`python -m benchmarks.papers TABLE... [--seeds N,N] [--only train|judge|time|table]`.

Trains, judges and times the networks of each table, and writes it. All is kept under `runs/papers/` and not done again
once it is there. Times are worth something on a quiet machine alone: train and judge first, time then.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from benchmarks import machine
from benchmarks.papers.judging import Judged, judge
from benchmarks.papers.tables import TABLES, Table
from benchmarks.papers.text import markdown
from benchmarks.papers.timing import Timed, time_topology
from benchmarks.papers.training import FULL_NET, train

RUNS = Path("runs/papers")
STEPS = ("train", "judge", "time", "table")

log = logging.getLogger("benchmarks.papers")
Kept = TypeVar("Kept")


def main() -> None:
    """Read the command line and do what it says, seed by seed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.papers")
    parser.add_argument("tables", nargs="+", choices=TABLES, metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--only", choices=STEPS, help="this step alone")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    seeds = [int(part) for part in args.seeds.split(",")]
    steps = STEPS if args.only is None else (args.only,)
    for seed in seeds:
        for name in args.tables:
            _run(TABLES[name], seed, RUNS / name / f"seed{seed}", steps)
    if "table" in steps:
        print(machine.describe())
        for name in args.tables:
            print(f"\n## {name}\n\n{_table(TABLES[name], name, seeds)}")


def _run(table: Table, seed: int, folder: Path, steps: tuple[str, ...]) -> None:
    if "train" in steps:
        train(table, seed, folder)
    if "judge" in steps:
        _judged(table, seed, folder)
    if "time" in steps:
        judged = _judged(table, seed, folder)
        for name in table.topologies:
            _timed(table, judged[name], folder, name)


def _table(table: Table, name: str, seeds: list[int]) -> str:
    results: dict[str, list[tuple[Judged, Timed]]] = {topology: [] for topology in table.topologies}
    for seed in seeds:
        folder = RUNS / name / f"seed{seed}"
        judged = _judged(table, seed, folder)
        for topology, found in results.items():
            found.append((judged[topology], _timed(table, judged[topology], folder, topology)))
    return markdown(table, seeds, results)


def _judged(table: Table, seed: int, folder: Path) -> dict[str, Judged]:
    return _kept(folder / "judged.json", TypeAdapter(dict[str, Judged]), lambda: judge(table, seed, folder))


def _timed(table: Table, judged: Judged, folder: Path, name: str) -> Timed:
    return _kept(
        folder / f"{name}-times.json",
        TypeAdapter(Timed),
        lambda: time_topology(table, judged, folder / FULL_NET, folder / name),
    )


def _kept(path: Path, form: TypeAdapter[Kept], make: Callable[[], Kept]) -> Kept:
    """What is in the file; made and written, in one step, where there is none."""
    if not path.exists():
        log.info("making %s", path)
        partial = path.with_suffix(".partial")
        partial.write_bytes(form.dump_json(make(), indent=1))
        partial.replace(path)
    return form.validate_json(path.read_bytes())


if __name__ == "__main__":
    main()
