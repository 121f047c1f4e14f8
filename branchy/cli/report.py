"""`branchy report`: tables and plots from results files."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("csv", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/report"),
    show_default=True,
    metavar="DIR",
    help="Where the page and the plots go.",
)
@click.option("--table-only", is_flag=True, help="Print the tables and write nothing.")
def command(csv: tuple[Path, ...], out: Path, table_only: bool) -> None:
    """Print accuracy and latency by tier, exit and reason; write plots and a page that holds them all.

    Each CSV is a run, as `branchy device --csv`, `branchy evaluate --csv` and `branchy demo` write
    it; several stand side by side.
    """
    from branchy.reports.report import report

    made = report(csv, None if table_only else out)
    click.echo(made.text())
    if made.files:
        click.echo(f"\nwritten: {', '.join(map(str, made.files))}")
