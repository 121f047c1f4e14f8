"""Results files as pandas data frames, and a report's tables: by answering tier and reason, and by exit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from branchy.core.statistics import quantile
from branchy.reports.csv import Results, title
from branchy.reports.summary import NONE, Summary, interval, lines, milliseconds, percent

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Table:
    """What it is about, its columns' names, and its cells as text; the first `left` columns are words."""

    heading: str
    about: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int


def requests_frame(runs: Mapping[str, Results]) -> pd.DataFrame:
    """One line a request, for analyses of one's own too.

    Args:
        runs: results files by the name of their run.

    Returns:
        Columns: run, test, expected, predicted (class indices), correct, tier, reason, confidence,
        latency_s, bytes_up, certified, request. Unanswered requests have no tier and no reason, refused ones
        no predicted class; what is not known is missing.
    """
    import pandas as pd

    rows = [(name, row) for name, results in runs.items() for row in results.rows]
    names = tier_names(runs)
    tiers = [names[title(row.tier)] if row.tier else None for _, row in rows]
    frame = pd.DataFrame(
        {
            "run": pd.Categorical([name for name, _ in rows], categories=list(runs)),
            "test": [row.test for _, row in rows],
            "expected": pd.array([row.expected for _, row in rows], dtype="Int64"),
            "predicted": pd.array([row.predicted for _, row in rows], dtype="Int64"),
            "tier": pd.Categorical(tiers, categories=list(names.values())),
            "reason": pd.array([row.reason for _, row in rows], dtype="string"),
            "confidence": pd.array([row.confidence for _, row in rows], dtype="Float64"),
            "latency_s": pd.array([row.latency_s for _, row in rows], dtype="Float64"),
            "bytes_up": pd.array([row.bytes_up for _, row in rows], dtype="Int64"),
            "certified": pd.array([row.certified for _, row in rows], dtype="boolean"),
            "request": [row.request for _, row in rows],
        }
    )
    frame.insert(4, "correct", frame["predicted"] == frame["expected"])
    return frame


def exits_frame(runs: Mapping[str, Results]) -> pd.DataFrame:
    """One line for each time a tier's own exit predicted something, whoever answered in the end.

    Returns:
        Columns: run, test, tier, expected, predicted, correct, computation_s, prediction_s (from the
        tier's receipt to its answer).
    """
    import pandas as pd

    names = tier_names(runs)
    done = [
        (name, row, names[tier], cells)
        for name, results in runs.items()
        for row in results.rows
        for tier, cells in row.tiers.items()
        if cells.prediction is not None
    ]
    frame = pd.DataFrame(
        {
            "run": pd.Categorical([name for name, *_ in done], categories=list(runs)),
            "test": [row.test for _, row, *_ in done],
            "tier": pd.Categorical([tier for _, _, tier, _ in done], categories=list(names.values())),
            "expected": pd.array([row.expected for _, row, *_ in done], dtype="Int64"),
            "predicted": pd.array([cells.prediction for *_, cells in done], dtype="Int64"),
            "computation_s": pd.array([cells.computation_s for *_, cells in done], dtype="Float64"),
            "prediction_s": pd.array([cells.prediction_s for *_, cells in done], dtype="Float64"),
        }
    )
    frame.insert(5, "correct", frame["predicted"] == frame["expected"])
    return frame


def tier_names(runs: Mapping[str, Results]) -> dict[str, str]:
    """The tiers' names by their columns' title, nearest the device first."""
    titles = dict.fromkeys(name for results in runs.values() for name in results.titles)
    spelled = {title(row.tier): row.tier for results in runs.values() for row in results.rows if row.tier}
    return {name: spelled.get(name, name[:1].lower() + name[1:]) for name in titles | dict.fromkeys(spelled)}


def overview(runs: Mapping[str, Results]) -> Table:
    """The runs side by side."""
    summaries = [Summary.of(results.rows, results.titles) for results in runs.values()]
    rows = tuple((label, *cells) for label, cells in lines(summaries))
    about = "Latency is the requester's round trip; bytes are headers and bodies sent up at all cuts."
    return Table("Runs", about, ("", *runs), rows, left=1)


def by_tier_and_reason(frame: pd.DataFrame) -> Table:
    """Who answered, why, how right and how fast; from `requests_frame`."""
    rows = []
    for run, requests in _each(frame, "run"):
        for tier, answered in _each(requests, "tier"):
            refused = answered["predicted"].isna()
            for prefix, part in (("", answered[~refused]), ("refused: ", answered[refused])):
                for reason, group in _each(part, "reason"):
                    rows.append((run, tier, prefix + reason, *_shares(group, len(requests)), *_answers(group)))
        nobody = requests[requests["tier"].isna()]
        if len(nobody):
            rows.append((run, NONE, "unanswered", *_shares(nobody, len(requests)), *_answers(nobody)))
    header = ("run", "tier", "reason", "requests", "share", "right", "95 % interval", "p50", "p99", "bytes up")
    about = "Who answered and why. Right: share of the answers with the true class. p50, p99: round trip."
    return Table("By answering tier and reason", about, header, tuple(rows), left=3)


def by_exit(frame: pd.DataFrame) -> Table:
    """How right and how fast each tier's own exit is on what reached it; from `exits_frame`."""
    rows = []
    for run, predictions in _each(frame, "run"):
        for tier, group in _each(predictions, "tier"):
            times = (*_times(group["computation_s"]), *_times(group["prediction_s"]))
            rows.append((run, tier, f"{len(group):,}", *_right(group), *times))
    header = (
        "run",
        "exit of",
        "reached it",
        "right",
        "95 % interval",
        "computing p50",
        "p99",
        "in the tier p50",
        "p99",
    )
    about = "What each tier's own exit says of all that reached it, whoever answered in the end."
    return Table("By exit", about, header, tuple(rows), left=2)


def _each(frame: pd.DataFrame, column: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """The groups of a column, runs and tiers in their own order; what is missing is in none."""
    for value, group in frame.groupby(column, observed=True):
        yield str(value), group


def _shares(group: pd.DataFrame, of: int) -> tuple[str, str]:
    return f"{len(group):,}", percent(len(group) / of)


def _answers(group: pd.DataFrame) -> tuple[str, ...]:
    bytes_up = group["bytes_up"].dropna()
    return (*_right(group), *_times(group["latency_s"]), f"{bytes_up.mean():,.0f}" if len(bytes_up) else NONE)


def _right(group: pd.DataFrame) -> tuple[str, str]:
    correct = group["correct"].dropna()
    right = int(correct.sum())
    return percent(right / len(correct) if len(correct) else None), interval(right, len(correct))


def _times(seconds: pd.Series[float]) -> tuple[str, str]:
    known = seconds.dropna().to_list()
    if not known:
        return NONE, NONE
    return milliseconds(quantile(known, 0.5)), milliseconds(quantile(known, 0.99))
