"""`branchy broker`: start, look at and stop a broker on this machine."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def command() -> None:
    """A broker on this machine: a real Apache Kafka, or a small embedded one for trying out."""


@command.command()
@click.option("--embedded", is_flag=True, help="librdkafka's mock cluster: a few MB a partition, nothing on disk.")
@click.option("--nodes", type=click.Choice(["1", "3"]), help="Nodes of the Kafka; three survive the loss of one. [1]")
@click.option(
    "--port", type=click.IntRange(1024, 65_533), help="Of the first node, the others follow. [as before, or free ones]"
)
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="Folder of data and logs. [.branchy/kafka]"
)
@click.option("--foreground", is_flag=True, help="Stay until Ctrl-C instead of running in the background.")
def start(embedded: bool, nodes: str | None, port: int | None, data: Path | None, foreground: bool) -> None:
    """Start a broker and write its address to .branchy/broker.json, where the other commands look.

    Without --embedded it is Apache Kafka: that of KAFKA_HOME, or one that Maven assembles once into
    the user's cache folder. Topics and messages stay in the data folder when it is stopped.
    """
    from branchy.errors import UsageError

    if not embedded:
        _start_kafka(None if nodes is None else int(nodes), port, data, foreground)
    elif (nodes, port, data) == (None, None, None):
        _start_embedded(foreground)
    else:
        raise UsageError("--nodes, --port and --data are for a real Kafka: leave them out, or --embedded")


def _start_embedded(foreground: bool) -> None:
    from branchy.brokers import embedded
    from branchy.config import BROKER_FILE

    if foreground:
        embedded.run_embedded(BROKER_FILE, lambda record: click.echo(f"broker at {record.brokers}; Ctrl-C ends it"))
    else:
        record = embedded.start_detached(BROKER_FILE)
        click.echo(f"broker at {record.brokers} (process {record.pid}); 'branchy broker stop' ends it")


def _start_kafka(nodes: int | None, port: int | None, data: Path | None, foreground: bool) -> None:
    import os
    import signal
    import sys

    from branchy.brokers.apache_kafka import KafkaCluster
    from branchy.brokers.kafka_home import find_kafka
    from branchy.config import BROKER_FILE

    def say(line: str) -> None:
        click.echo(line, err=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # half started, end as by Ctrl-C
    home = find_kafka(os.environ, say)
    cluster = KafkaCluster(home, data or BROKER_FILE.parent / "kafka", nodes=nodes, port=port)
    say(f"starting Apache Kafka {home.version} in {cluster.data}")
    if foreground:
        cluster.run(BROKER_FILE, lambda: click.echo(f"broker at {cluster.brokers}; Ctrl-C ends it"))
    else:
        cluster.start(BROKER_FILE)
        cluster.detach()
        click.echo(f"broker at {cluster.brokers}; 'branchy broker stop' ends it")


@command.command()
def status() -> None:
    """Say whether a broker runs here, and where."""
    from branchy.brokers.running import dead_nodes, running_broker
    from branchy.config import BROKER_FILE
    from branchy.errors import BranchyError

    record = running_broker(BROKER_FILE)
    if record is None:
        raise BranchyError("no broker runs here; start one with 'branchy broker start'")
    where = "" if record.data is None else f", data in {record.data}"
    click.echo(f"{record.kind} broker at {record.brokers} (process {record.pid}), since {record.started}{where}")
    dead = dead_nodes(record)
    if dead:
        raise BranchyError(
            f"{' and '.join(folder.name for folder in dead)} ended by itself; see {dead[0] / 'kafka.log'}, "
            "and start all anew with 'branchy broker stop' and 'start'"
        )


@command.command()
def stop() -> None:
    """Stop the broker that runs here."""
    from branchy.brokers.running import stop_broker
    from branchy.config import BROKER_FILE
    from branchy.errors import BranchyError

    record = stop_broker(BROKER_FILE)
    if record is None:
        raise BranchyError("no broker runs here; there is nothing to stop")
    click.echo(f"broker at {record.brokers} stopped")
