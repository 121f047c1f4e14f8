"""`branchy topics`: a cascade's topics on the brokers."""

from __future__ import annotations

from pathlib import Path

import click

from branchy.cli import bundle_option, cascade_option, config_option


@click.group()
def command() -> None:
    """The topics of a cascade."""


@command.command()
@bundle_option
@click.option("--back", metavar="HOST:PORT", help="The brokers.  [default: those of this machine]")
@cascade_option
@click.option(
    "--partitions", type=click.IntRange(1, 10_000), default=12, show_default=True, help="Of each topic that is made."
)
@click.option(
    "--replication", type=click.IntRange(1, 15), help="Copies of each topic that is made.  [default: the brokers']"
)
@click.option("--grant", is_flag=True, help="Give the users of tiers and devices the rights that they need.")
@click.option(
    "--device", "devices", multiple=True, metavar="USER", help="A device's user that gets a reply topic of its own."
)
@config_option
def create(
    bundle: Path | None,
    back: str | None,
    cascade: str | None,
    partitions: int,
    replication: int | None,
    grant: bool,
    devices: tuple[str, ...],
    config: Path | None,
) -> None:
    """Create a bundle's topics where they are not there, with room for its largest tensors.

    A topic that is there and does not fit is named with what differs, and the exit code is 1. Tiers
    make their topics themselves where they may; this is for brokers where only an operator may.

    With --grant each tier's user, named as the tier, and the users 'device' and USER get the rights that they
    need and no more. Who has a topic of its own reads it with --reply-topic; nobody else may. To give
    rights needs the right to alter the cluster.

    Addresses and credentials come as for a device: flags, BRANCHY_BACK_*, branchy.toml.
    """
    from branchy.config import DeviceSettings, load
    from branchy.runner.topics import create_topics

    settings = load(DeviceSettings, {"bundle": bundle, "cascade": cascade, "back": {"brokers": back}}, config)
    report = create_topics(settings, partitions=partitions, replication=replication, devices=devices, grant=grant)
    for name in report.created:
        click.echo(f"created  {name}")
    for name in report.fitting:
        click.echo(f"fits     {name}")
    for rule in report.granted:
        click.echo(f"granted  {rule.user}: {', '.join(rule.operations)} of {rule.kind} {rule.name}{'*' * rule.prefix}")
