"""`branchy tune`: thresholds for a bundle, as given, swept, or with a guarantee."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from branchy.cli import format_option, policy_option


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("dataset", required=False)
@click.option("--out", type=click.Path(path_type=Path), help="The new bundle's directory.  [default: BUNDLE-tuned]")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there already.")
@click.option("--threshold", multiple=True, metavar="[STAGE=]T", help="Take this; --alpha certifies it.")
@click.option("--target-share", metavar="P,P,...", help="Per cent that shall leave at each exit, such as 60,25,15.")
@click.option("--target-accuracy", type=float, metavar="PERCENT", help="The cheapest that are this accurate.")
@click.option("--target-cost", type=float, metavar="N", help="The most accurate with this mean cost a sample.")
@click.option("--alpha", type=float, help="The cheapest certified to lose at most this, such as 0.01.")
@click.option("--certified", type=int, metavar="N", help="Number N of BUNDLE's own certified; takes no DATASET.")
@click.option("--delta", type=float, help="Probability that a promise fails.  [default: 0.05]")
@click.option(
    "--loss",
    type=click.Choice(["gap", "disagreement", "error"]),
    help="gap and disagreement are to the full model.  [default: gap]",
)
@click.option(
    "--guarantee",
    type=click.Choice(["probability", "expected"]),
    help="expected: on average only; has no delta.  [default: probability]",
)
@click.option("--bound", type=click.Choice(["binomial", "betting"]), help="The test.  [default: the better one]")
@click.option("--cost", type=click.Choice(["bytes", "flops"]), default="bytes", show_default=True, help="Of a sample.")
@policy_option
@format_option
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="Threads for one batch.")
@click.option("--unseen", is_flag=True, help="None of DATASET was trained on: use all that is not for testing.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the samples' order.")
def command(
    bundle: Path, dataset: str | None, threshold: tuple[str, ...], target_share: str | None, **options: Any
) -> None:
    """Choose the exits' thresholds of BUNDLE and write a bundle that has them.

    DATASET is that of the training, of which the parts kept for this are taken; or, with --unseen,
    other data. Its test samples are left for `branchy evaluate`. Give one of --threshold,
    --target-share, --target-accuracy, --target-cost and --alpha. Only --alpha promises anything;
    --certified N keeps what was promised and takes other thresholds of the certified.
    """
    from branchy.core.cascade import parse_thresholds
    from branchy.datasets import load
    from branchy.runner.tuning import TuneOptions, tune
    from branchy.runner.tuning_certified import take_certified
    from branchy.runner.tuning_summary import promise_text
    from branchy.store.bundle import Bundle

    shares = tuple(_number(part) for part in target_share.split(",")) if target_share else None
    wanted = TuneOptions(thresholds=parse_thresholds(threshold), target_share=shares, **options)
    loaded = Bundle.load(bundle)
    if dataset is None:
        click.echo(promise_text(take_certified(loaded, wanted)))
        return
    height, width = loaded.spec.input.tensor.shape[:2]
    data = load(dataset, size=(height, width))
    for line in data.skipped:
        click.echo(f"skipped {line}", err=True)
    click.echo(tune(loaded, data, wanted).text())


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(
            f"expected numbers with commas between, got {text!r}", param_hint="--target-share"
        ) from None
