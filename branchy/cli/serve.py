"""`branchy serve`: run one tier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from branchy.cli import FORMATS, bundle_option, cascade_option, config_option, policy_option, threshold_option


@click.command()
@bundle_option
@click.option("--tier", help="The stages to run, consecutive, with commas between; or 'full' for the whole model.")
@click.option("--back", metavar="HOST:PORT", help="Brokers towards the device.  [default: those of this machine]")
@click.option("--front", metavar="HOST:PORT", help="Brokers towards the cloud.  [default: the same as the back]")
@cascade_option
@click.option("--replica", help="This replica's ordinal or name; replicas of a tier need different ones.  [default: 0]")
@click.option(
    "--format",
    type=click.Choice(["auto", *FORMATS]),
    help="Of the stages. auto: the quickest here that is as accurate.  [default: litert]",
)
@click.option("--threads", type=int, help="Threads for one batch.  [default: 1]")
@click.option("--batch-size", type=int, help="Most samples in one batch.  [default: 32]")
@click.option("--pending", type=int, help="Most requests that may wait for the front.  [default: 1024]")
@click.option("--backlog", type=int, help="Requests waiting at which the queue is paused.  [default: 2048]")
@click.option("--window-s", type=float, help="Sliding window of the circuit breaker.  [default: 10]")
@click.option("--probe-s", type=float, help="How often an open breaker lets one through.  [default: 2]")
@click.option("--way-back-ms", type=float, help="Kept of each deadline for the answer's way.  [default: 10]")
@policy_option
@threshold_option
@click.option("--reply-topic", help="Topic of its own for the front's answers.  [default: that of the tier's replicas]")
@config_option
@click.option("--health-port", type=int, help="Serve /healthz, /readyz and /metrics there.  [default: not at all]")
@click.option("--health-host", metavar="ADDRESS", help="Address of the health port.  [default: 0.0.0.0, all of them]")
@click.option("--ready-file", type=click.Path(path_type=Path), help="Written once the tier takes requests.")
def command(
    config: Path | None,
    ready_file: Path | None,
    policy: Any,
    threshold: tuple[str, ...],
    back: str | None,
    front: str | None,
    health_port: int | None,
    health_host: str | None,
    **flags: Any,
) -> None:
    """Run one tier of a bundle: answer what its exits are sure of, send the rest up.

    Settings come from flags, then the environment (BRANCHY_BATCH_SIZE, BRANCHY_BACK_BROKERS,
    BRANCHY_FRONT_PASSWORD, ...), then branchy.toml. SIGTERM and Ctrl-C settle what is under way.
    """
    from branchy.config import ServeSettings, load
    from branchy.core.cascade import parse_thresholds
    from branchy.runner.serving import serve
    from branchy.transport.kafka import KafkaLink

    thresholds = parse_thresholds(threshold)
    health = {"port": health_port, "host": health_host}
    links = {"back": {"brokers": back}, "front": {"brokers": front}}
    settings = load(ServeSettings, {**flags, **links, "health": health}, config)
    serve(settings, KafkaLink, policy=policy, thresholds=thresholds, ready_file=ready_file)
