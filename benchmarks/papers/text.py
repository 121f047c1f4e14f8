"""A table as Markdown: the paper's row, and ours beneath it with mean and deviation over the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

from benchmarks.papers.judging import Judged
from benchmarks.papers.tables import Table
from benchmarks.papers.timing import Timed
from benchmarks.spread import spread

HEADER = (
    "network",
    "thresholds",
    "accuracy, %",
    "drop, points",
    "leave at each exit, %",
    "speed-up",
    "with the runner's work",
    "as the paper's code counts",
    "if all left first",
)


def markdown(table: Table, seeds: Sequence[int], results: Mapping[str, Sequence[tuple[Judged, Timed]]]) -> str:
    """The table of one of the paper's networks.

    Args:
        table: which.
        seeds: that were run.
        results: by topology what was found with each seed.
    """
    rows = [_published(table), _full(next(iter(results.values())))]
    for name, found in results.items():
        of_paper = name == next(iter(table.topologies))
        rows += [_row(name, rule, found, of_paper=of_paper) for rule in found[0][0].rows]
    lines = [HEADER, ["---", "---", *["---:"] * (len(HEADER) - 2)], *rows]
    exits = [_exits(name, [judged for judged, _ in found]) for name, found in results.items()]
    counted = f"Seeds {', '.join(map(str, seeds))}."
    return "\n".join([*("| " + " | ".join(line) + " |" for line in lines), "", " ".join([counted, *exits]), ""])


def _published(table: Table) -> list[str]:
    row = table.published
    shares = ", ".join(f"{share:g}" for share in row.shares)
    drop = f"{row.full_accuracy - row.accuracy:.2f}"
    return [
        "published",
        "knee, on the test part",
        f"{row.accuracy:.2f}",
        drop,
        shares,
        "",
        "",
        f"{row.speedup:.1f}",
        "",
    ]


def _full(found: Sequence[tuple[Judged, Timed]]) -> list[str]:
    ms = f"1 ({spread([timed.full.invoke for _, timed in found], 3)} ms)"
    runner = f"1 ({spread([timed.full.runner for _, timed in found], 3)} ms)"
    return ["our full net", "", spread([100 * judged.full for judged, _ in found]), "", "", ms, runner, "1", ""]


def _row(name: str, rule: str, found: Sequence[tuple[Judged, Timed]], *, of_paper: bool) -> list[str]:
    """One topology and rule; of others than the paper's its way to count says little, as exits are most of them."""
    rows = [judged.rows[rule] for judged, _ in found]
    times = [(timed.full, timed.rules[rule]) for _, timed in found]
    shares = ", ".join(f"{100 * mean(row.shares[stage] for row in rows):.1f}" for stage in rows[0].shares)
    return [
        name,
        rule,
        spread([100 * row.accuracy for row in rows]),
        spread([100 * (judged.full - judged.rows[rule].accuracy) for judged, _ in found]),
        shares,
        spread([full.invoke / branchy.invoke for full, branchy in times]),
        spread([full.runner / branchy.runner for full, branchy in times]),
        spread([full.trunk / branchy.trunk for full, branchy in times]) if of_paper else "",
        spread([timed.full.invoke / timed.first for _, timed in found]),
    ]


def _exits(name: str, found: Sequence[Judged]) -> str:
    each = ", ".join(f"{stage} {spread([100 * judged.exits[stage] for judged in found])}" for stage in found[0].exits)
    return f"{name}, each exit answering all: {each} %."
