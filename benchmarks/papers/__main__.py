"""`python -m benchmarks.papers TABLE... [--seeds N,N] [--only train|measure|table]`.

Trains, measures and writes each table; trainings and measurements that are there already are not done again. They are
kept under `runs/papers/`. Times are worth something on a quiet machine alone: train first, measure then.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from benchmarks.papers.tables import TABLES
from benchmarks.papers.training import train

RUNS = Path("runs/papers")


def main() -> None:
    """Read the command line and do what it says, seed by seed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.papers")
    parser.add_argument("tables", nargs="+", choices=TABLES, metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--only", choices=("train", "measure", "table"))
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for seed in (int(part) for part in args.seeds.split(",")):
        for name in args.tables:
            train(TABLES[name], seed, RUNS / name / f"seed{seed}")


if __name__ == "__main__":
    main()
