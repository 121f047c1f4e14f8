"""`branchy evaluate`: measure a bundle on a test set, in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from branchy.cli import format_option, policy_option, threshold_option


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("dataset")
@click.option("--stage", metavar="NAME", help="Send every sample to this stage's exit; 'full' for the full model.")
@format_option
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="Threads for one batch.")
@click.option("--batch-size", type=click.IntRange(1, 4096), default=32, show_default=True, help="1: one by one.")
@policy_option
@threshold_option
@click.option("--csv", type=click.Path(path_type=Path), metavar="FILE", help="Also write a row a sample.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Also write all figures as CSVs and plots.")
@click.option("--uplink-mbit", default="10", show_default=True, metavar="N[,N...]", help="Of every cut, or one a cut.")
@click.option("--rtt-ms", default="20", show_default=True, metavar="N[,N...]", help="Round trip; the same.")
@click.option("--slower", default="1", show_default=True, metavar="N[,N...]", help="Times; from the first tier on.")
def command(
    bundle: Path,
    dataset: str,
    stage: str | None,
    threshold: tuple[str, ...],
    batch_size: int,
    csv: Path | None,
    out: Path | None,
    uplink_mbit: str,
    rtt_ms: str,
    slower: str,
    **options: Any,
) -> None:
    """Run the test samples of DATASET through BUNDLE: how right, how calibrated, at what cost, and does it pay.

    DATASET is a folder with one sub-folder a class, an .npz file, or a name (digits,
    fashion-mnist, mnist, cifar10). Samples leave at the first exit that is sure, as they
    would in the tiers; no broker is needed. Times in the first table are a sample's share of its
    batch. Whether the cascade pays is told for the links of --uplink-mbit and --rtt-ms, and for
    computers that are --slower than this one, such as 8 for a small first tier. --out gets
    reliability diagrams, classes, confusions, and accuracy against cost over the thresholds.
    """
    from branchy.core.cascade import parse_thresholds
    from branchy.datasets import load
    from branchy.errors import UsageError
    from branchy.runner.analysis import analyse, prepare_folder, site_of
    from branchy.runner.evaluation import evaluate
    from branchy.store.bundle import Bundle

    options["thresholds"] = parse_thresholds(threshold)
    numbers = (_numbers("--uplink-mbit", uplink_mbit), _numbers("--rtt-ms", rtt_ms), _numbers("--slower", slower))
    loaded = Bundle.load(bundle)
    site = site_of(loaded.spec, options["fmt"], *numbers)
    if out is not None:
        if stage is not None:
            raise UsageError("--out is about the whole cascade: leave --stage out")
        prepare_folder(out)
    height, width = loaded.spec.input.tensor.shape[:2]
    data = load(dataset, size=(height, width), test_only=True)
    for line in data.skipped:
        click.echo(f"skipped {line}", err=True)
    click.echo(evaluate(loaded, data, stage=stage, batch_size=batch_size, csv=csv, **options).table())
    if stage is None:
        analysis = analyse(loaded, data, site, **options)
        click.echo(f"\n{analysis.text()}")
        if out is not None:
            click.echo(f"\nwritten to {out}: {', '.join(path.name for path in analysis.write(out))}")


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"expected numbers with commas between, got {text!r}", param_hint=flag) from None
