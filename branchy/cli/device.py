"""`branchy device`: send samples as a device does and record the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from branchy.cli import bundle_option, cascade_option, config_option


@click.command()
@click.argument("dataset")
@bundle_option
@click.option("--back", metavar="HOST:PORT", help="Brokers of the tier.  [default: those of this machine]")
@click.option("--tier", help="Whom to ask; 'full' for the full model.  [default: the first tier]")
@cascade_option
@click.option("--replica", help="This device's name; picks its reply partition.  [default: device]")
@click.option("--window", type=int, metavar="N", help="Closed loop: most requests in flight.  [default: 1]")
@click.option("--rate", type=float, metavar="R", help="Open loop: requests a second, whatever comes back.")
@click.option("--count", type=int, metavar="N", help="Requests to send.  [default: each test sample once]")
@click.option("--deadline-ms", type=float, help="Time budget of a request.  [default: 1000]")
@click.option("--grace-ms", type=float, help="How long after it an answer is still taken.  [default: 1000]")
@click.option("--connect-timeout-s", type=float, help="How long to wait for brokers.  [default: 10]")
@click.option("--csv", type=click.Path(path_type=Path), metavar="FILE", help="Write a row a request.")
@click.option("--output", metavar="FILE.py:FUNCTION", help="Called with each answer; prints what it returns.")
@click.option("--reply-topic", help="Topic of its own for the answers.  [default: the one that devices share]")
@config_option
def command(
    dataset: str,
    back: str | None,
    window: int | None,
    rate: float | None,
    count: int | None,
    csv: Path | None,
    output: str | None,
    config: Path | None,
    **flags: Any,
) -> None:
    """Send the test samples of DATASET to the first tier and print who answered, how right and how fast.

    DATASET is a folder with one sub-folder a class, an .npz file, or a name (digits,
    fashion-mnist, mnist, cifar10). Latency is the round trip; with --rate it counts from the
    moment a request was due, so that a slow system cannot hide its delays. Exit code 1 unless
    every request got a label. --output takes MODULE:FUNCTION too.
    """
    from branchy.config import DeviceSettings, load
    from branchy.runner.sending import send_dataset

    settings = load(DeviceSettings, {**flags, "back": {"brokers": back}}, config)
    send_dataset(dataset, settings, click.echo, window=window, rate=rate, count=count, csv=csv, output=output)
