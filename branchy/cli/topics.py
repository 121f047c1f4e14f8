"""`branchy topics`: a cascade's topics on the brokers."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def command() -> None:
    """The topics of a cascade."""


@command.command()
@click.option("--bundle", type=click.Path(path_type=Path), help="The bundle's directory.")
@click.option("--back", metavar="HOST:PORT", help="The brokers.  [default: those of this machine]")
@click.option("--cascade", help="Name in the topics.  [default: the bundle's]")
@click.option(
    "--partitions", type=click.IntRange(1, 10_000), default=12, show_default=True, help="Of each topic that is made."
)
@click.option(
    "--replication", type=click.IntRange(1, 15), help="Copies of each topic that is made.  [default: the brokers']"
)
@click.option("--config", type=click.Path(path_type=Path), help="Settings file.  [default: branchy.toml, if there]")
def create(
    bundle: Path | None,
    back: str | None,
    cascade: str | None,
    partitions: int,
    replication: int | None,
    config: Path | None,
) -> None:
    """Create a bundle's topics where they are not there, with room for its largest tensors.

    A topic that is there and does not fit is named with what differs, and the exit code is 1. Tiers
    make their topics themselves where they may; this is for brokers where only an operator may.
    Addresses and credentials come as for a device: flags, BRANCHY_BACK_*, branchy.toml.
    """
    from branchy.config import DeviceSettings, load
    from branchy.runner.topics import create_topics

    settings = load(DeviceSettings, {"bundle": bundle, "cascade": cascade, "back": {"brokers": back}}, config)
    report = create_topics(settings, partitions=partitions, replication=replication)
    for name in report.created:
        click.echo(f"created  {name}")
    for name in report.fitting:
        click.echo(f"fits     {name}")
