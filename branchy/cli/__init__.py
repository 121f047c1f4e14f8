"""Flags and wiring only; one file a command, loaded lazily."""

from pathlib import Path

import click

FORMATS = ("litert", "litert-float16", "litert-int8", "keras")
"""What a stage can be exported in: `core.cascade.FormatName`, without loading numpy for a flag."""

uplink_option = click.option(
    "--uplink",
    metavar="KIND[,KIND...]",
    default="activation",
    show_default=True,
    help="What every cut sends, or each: activation, bottleneck, sample, auto.",
)
"""Of the commands that cut a model."""

format_option = click.option(
    "--format",
    "fmt",
    type=click.Choice(FORMATS),
    default="litert",
    show_default=True,
    help="Which form of the stages is run.",
)
policy_option = click.option(
    "--policy", type=click.Choice(["max_prob", "margin", "entropy"]), help="Exit policy, not the bundle's."
)
threshold_option = click.option("--threshold", multiple=True, metavar="[STAGE=]T", help="Threshold, not the bundle's.")
bundle_option = click.option("--bundle", type=click.Path(path_type=Path), help="The bundle's directory.")
cascade_option = click.option("--cascade", help="Name in the topics.  [default: the bundle's]")
config_option = click.option(
    "--config", type=click.Path(path_type=Path), help="Settings file.  [default: branchy.toml, if there]"
)
