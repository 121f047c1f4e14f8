"""`branchy report`: from results files to tables, plots and a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from branchy.errors import MissingExtraError, UsageError
from branchy.reports import plots
from branchy.reports.csv import Results, read_csv
from branchy.reports.folder import make_folder, write_files
from branchy.reports.page import page
from branchy.reports.tables import Table, by_exit, by_tier_and_reason, exits_frame, overview, requests_frame
from branchy.reports.text import text_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PAGE = "report.html"
ANSWERS = "Hatched: the tier stood in for its front, which did not answer in time, was not reachable or refused."
LATENCY = "Share of the answers that came within a time, from the requester's point of view; times are logarithmic."
ACCURACY = "Share of right answers, with 95 % Wilson intervals. An exit is judged on all that reached it."


@dataclass(frozen=True, slots=True)
class Report:
    """What was made: the tables, and the files that were written."""

    tables: tuple[Table, ...]
    files: tuple[Path, ...]

    def text(self) -> str:
        """The tables for a terminal."""
        return "\n\n".join(f"{t.heading}\n{t.about}\n\n{text_table(t.header, t.rows, t.left)}" for t in self.tables)


def report(paths: Sequence[Path], out: Path | None) -> Report:
    """Read results files and write what they come to.

    Args:
        paths: results files; each is a run, named after its file.
        out: a directory for `report.html`, `answers.png`, `latency.png` and `accuracy.png`, replaced
            where they are there; None writes nothing.

    Raises:
        UsageError: no file, one that is not there or is named twice, or a directory that cannot be written.
        ReportError: a file that is not one of results.
        MissingExtraError: pandas or matplotlib is not installed.
    """
    for needed in ("pandas", "matplotlib"):
        if find_spec(needed) is None:
            raise MissingExtraError("branchy report", "train")
    names = name_runs(paths)
    runs = {
        name: read_csv(path) for name, path in tqdm(names.items(), desc="reading", unit="file", leave=False, delay=0.5)
    }
    if out is not None:
        make_folder(out, "a report")
    requests, exits = requests_frame(runs), exits_frame(runs)
    tables = (overview(runs), by_tier_and_reason(requests), by_exit(exits))
    return Report(tables, () if out is None else tuple(_write(out, runs, tables, requests, exits)))


def name_runs(paths: Sequence[Path]) -> dict[str, Path]:
    """The runs' names: the files' without suffix, or where two are alike their paths.

    Raises:
        UsageError: no file, or one twice.
    """
    if not paths:
        raise UsageError("expected at least one results file, got none")
    if len(set(paths)) != len(paths):
        raise UsageError(f"expected each results file once, got {', '.join(map(str, paths))}")
    stems = Counter(path.stem for path in paths)
    return {path.stem if stems[path.stem] == 1 else str(path): path for path in paths}


def _write(
    out: Path, runs: Mapping[str, Results], tables: Sequence[Table], requests: pd.DataFrame, exits: pd.DataFrame
) -> list[Path]:
    """Draw and write everything; the page comes first."""
    draw: dict[str, tuple[str, str, Callable[[], Figure]]] = {
        "answers.png": ("Who answered, and why", ANSWERS, lambda: plots.answers_plot(requests)),
        "latency.png": ("How fast", LATENCY, lambda: plots.latency_plot(requests)),
        "accuracy.png": ("How right", ACCURACY, lambda: plots.accuracy_plot(requests, exits)),
    }
    shown: dict[str, tuple[str, bytes]] = {}
    files = {}
    for name, (heading, about, plot) in tqdm(draw.items(), desc="drawing", unit="plot", leave=False, delay=0.5):
        files[name] = plots.png(plot())
        shown[heading] = (about, files[name])
    about = f"{', '.join(str(run.path) for run in runs.values())}; branchy {version('branchy')}"
    html = page("Results of branchy", about, shown, tables).encode()
    return write_files(out, {PAGE: html, **files})
