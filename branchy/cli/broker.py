"""`branchy broker`: start, look at and stop a broker on this machine."""

from __future__ import annotations

import click


@click.group()
def command() -> None:
    """A broker on this machine, for trying out."""


@command.command()
@click.option("--embedded", is_flag=True, help="librdkafka's mock cluster: a few MB a partition, nothing on disk.")
@click.option("--foreground", is_flag=True, help="Stay until Ctrl-C instead of running in the background.")
def start(embedded: bool, foreground: bool) -> None:
    """Start a broker and write its address to .branchy/broker.json, where the other commands look."""
    from branchy.brokers import embedded as brokers
    from branchy.config import BROKER_FILE
    from branchy.errors import UsageError

    if not embedded:
        raise UsageError(
            "expected --embedded: this version starts no other broker; for a real Apache Kafka, point --back at it"
        )
    if foreground:
        brokers.run_embedded(BROKER_FILE, lambda record: click.echo(f"broker at {record.brokers}; Ctrl-C ends it"))
    else:
        record = brokers.start_detached(BROKER_FILE)
        click.echo(f"broker at {record.brokers} (process {record.pid}); 'branchy broker stop' ends it")


@command.command()
def status() -> None:
    """Say whether a broker runs here, and where."""
    from branchy.brokers.embedded import running_broker
    from branchy.config import BROKER_FILE
    from branchy.errors import BranchyError

    record = running_broker(BROKER_FILE)
    if record is None:
        raise BranchyError("no broker runs here; start one with 'branchy broker start --embedded'")
    click.echo(f"{record.kind} broker at {record.brokers} (process {record.pid}), since {record.started}")


@command.command()
def stop() -> None:
    """Stop the broker that runs here."""
    from branchy.brokers.embedded import stop_broker
    from branchy.config import BROKER_FILE
    from branchy.errors import BranchyError

    record = stop_broker(BROKER_FILE)
    if record is None:
        raise BranchyError("no broker runs here; there is nothing to stop")
    click.echo(f"broker at {record.brokers} stopped")
