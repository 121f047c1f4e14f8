"""`branchy replay`: what other thresholds would have done to recorded requests."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("csv", type=click.Path(path_type=Path))
@click.option("--threshold", multiple=True, required=True, metavar="[EXIT=]T", help="On the largest probability.")
def command(csv: Path, threshold: tuple[str, ...]) -> None:
    """Say what other thresholds would have done to the requests of a results file.

    CSV is as `branchy device --csv`, `branchy evaluate --csv` and `branchy demo` write it. One number is
    for every exit but the last; an exit that is not named decides as it did. A laxer threshold is replayed
    exactly. What a stricter one sends on, later exits were never asked about: that is counted as not
    known, and the intervals say so.
    """
    from branchy.core.cascade import parse_thresholds
    from branchy.errors import UsageError
    from branchy.reports.csv import read_csv
    from branchy.reports.replay import replay

    thresholds = parse_thresholds(threshold)
    if thresholds is None:
        raise UsageError("expected --threshold, got none")
    click.echo(replay(read_csv(csv), thresholds).text())
