"""`branchy demo`: train, serve and measure on this machine in one go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("dataset", required=False)
@click.option("--bundle", type=click.Path(path_type=Path), help="A bundle to use.  [default: train one]")
@click.option(
    "--csv",
    type=click.Path(path_type=Path),
    metavar="FILE",
    default="results.csv",
    show_default=True,
    help="Write a row a request; the other passes' files are named after it.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default="runs/demo",
    show_default=True,
    help="For logs and the bundle that is trained.",
)
@click.option("--samples", type=click.IntRange(min=2), default=2000, show_default=True, help="Most samples in a pass.")
@click.option("--epochs", type=click.IntRange(min=1), help="Of the training.  [default: 20, fewer for many samples]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the training.")
def command(**settings: Any) -> None:
    """Train a cascade on DATASET, serve it, ask it, kill its cloud, and bring that back; all on this machine.

    DATASET is a folder with one sub-folder a class, an .npz file, or a name (digits,
    fashion-mnist, mnist, cifar10); digits unless told, or with --bundle what that was
    trained on. The tiers are processes of their own,
    and so is the broker. Exit code 1 unless every request that was sent was answered.
    """
    from tqdm import tqdm

    from branchy.errors import BranchyError
    from branchy.runner.demo import DemoSettings, run

    if not run(DemoSettings(**settings), tqdm.write):
        raise BranchyError("the demo did not show what it should: a request was not answered, or the cloud not back")
