"""Flags and wiring only; one file a command, loaded lazily."""

import click

FORMATS = ("litert", "litert-float16", "litert-int8", "keras")
"""What a stage can be exported in: `core.cascade.FormatName`, without loading numpy for a flag."""

uplink_dtype_option = click.option(
    "--uplink-dtype",
    type=click.Choice(["float32", "float16", "uint8"]),
    default="float16",
    show_default=True,
    help="What activations travel in.",
)
"""Of the commands that cut a model."""
