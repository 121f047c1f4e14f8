"""`branchy broker`: start, look at and stop a broker on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
@click.option("--tls", is_flag=True, help="Encrypt, with certificates that are made in the data folder.")
@click.option("--sasl", is_flag=True, help="Log in with passwords that are made in the data folder.")
@click.option("--users", metavar="NAMES", help="Users besides the operator.  [device,edge,fog,cloud, or as before]")
@click.option("--foreground", is_flag=True, help="Stay until Ctrl-C instead of running in the background.")
def start(
    embedded: bool,
    nodes: str | None,
    port: int | None,
    data: Path | None,
    tls: bool,
    sasl: bool,
    users: str | None,
    foreground: bool,
) -> None:
    """Start a broker and write its address to .branchy/broker.json, where the other commands look.

    Without --embedded it is Apache Kafka: that of KAFKA_HOME, or one that Maven assembles once into
    the user's cache folder. Topics and messages stay in the data folder when it is stopped.

    With --tls, --sasl or both only known users may do anything: by certificate with --tls alone, else by
    password. The data folder has a settings file for each, users/NAME.toml, for --config. 'branchy topics
    create --grant', as the operator, says what devices and tiers may do.
    """
    from branchy.errors import UsageError

    given = (nodes, port, data, users) != (None, None, None, None) or tls or sasl
    if embedded and given:
        raise UsageError(
            "--nodes, --port, --data, --tls, --sasl and --users are for a real Kafka: leave them out, or --embedded"
        )
    if embedded:
        _start_embedded(foreground)
        return
    security = {(True, True): "SASL_SSL", (True, False): "SSL", (False, True): "SASL_PLAINTEXT"}.get((tls, sasl))
    names = [] if users is None else [name.strip() for name in users.split(",")]
    count = None if nodes is None else int(nodes)
    _start_kafka(data, foreground, nodes=count, port=port, security=security, users=names)


def _start_embedded(foreground: bool) -> None:
    from branchy.brokers import embedded
    from branchy.config import BROKER_FILE

    if foreground:
        embedded.run_embedded(BROKER_FILE, lambda record: click.echo(f"broker at {record.brokers}; Ctrl-C ends it"))
    else:
        record = embedded.start_detached(BROKER_FILE)
        click.echo(f"broker at {record.brokers} (process {record.pid}); 'branchy broker stop' ends it")


def _start_kafka(data: Path | None, foreground: bool, **options: Any) -> None:
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
    cluster = KafkaCluster(home, data or BROKER_FILE.parent / "kafka", **options)
    say(f"starting Apache Kafka {home.version} in {cluster.data}")
    if foreground:
        cluster.run(BROKER_FILE, lambda: _say_where(f"broker at {cluster.brokers}; Ctrl-C ends it"))
    else:
        cluster.start(BROKER_FILE)
        cluster.detach()
        _say_where(f"broker at {cluster.brokers}; 'branchy broker stop' ends it")


def _say_where(line: str) -> None:
    """Where the broker is that runs here, and where it is secured also how to get in."""
    from branchy.brokers.running import running_broker, settings_files
    from branchy.config import BROKER_FILE

    click.echo(line)
    record = running_broker(BROKER_FILE)
    files = [] if record is None else settings_files(record)
    if record is not None and files:
        names = ", ".join(file.stem for file in files)
        click.echo(f"clients use {record.security} and --config {files[0].parent}/USER.toml; users: {names}")


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
    _say_where(f"{record.kind} broker at {record.brokers} (process {record.pid}), since {record.started}{where}")
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
