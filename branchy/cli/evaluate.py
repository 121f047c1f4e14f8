"""`branchy evaluate`: measure a bundle on a test set, in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("dataset")
@click.option("--stage", metavar="NAME", help="Send every sample to this stage's exit; 'full' for the full model.")
@click.option(
    "--engine",
    type=click.Choice(["litert", "keras"]),
    default="litert",
    show_default=True,
    help="What runs the stages.",
)
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="Threads for one batch.")
@click.option("--batch-size", type=click.IntRange(1, 4096), default=32, show_default=True, help="1: one by one.")
@click.option("--policy", type=click.Choice(["max_prob", "margin", "entropy"]), help="Exit policy, not the bundle's.")
@click.option("--threshold", multiple=True, metavar="[STAGE=]T", help="Threshold, not the bundle's.")
@click.option("--csv", type=click.Path(path_type=Path), metavar="FILE", help="Also write a row a sample.")
def command(bundle: Path, dataset: str, threshold: tuple[str, ...], **options: Any) -> None:
    """Run the test samples of DATASET through BUNDLE and print accuracy and cost of each exit.

    DATASET is a folder with one sub-folder a class, an .npz file, or a name (digits,
    fashion-mnist, mnist, cifar10). Samples leave at the first exit that is sure, as they
    would in the tiers; no broker is needed. Times are a sample's share of its batch.
    """
    from branchy.core.cascade import parse_thresholds
    from branchy.datasets import load
    from branchy.runner.evaluation import evaluate
    from branchy.store.bundle import Bundle

    thresholds = parse_thresholds(threshold)
    loaded = Bundle.load(bundle)
    height, width = loaded.spec.input.tensor.shape[:2]
    data = load(dataset, size=(height, width), test_only=True)
    for line in data.skipped:
        click.echo(f"skipped {line}", err=True)
    click.echo(evaluate(loaded, data, thresholds=thresholds, **options).table())
