"""`branchy train`: train a model with early exits and write its bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from branchy.cli import uplink_option


@click.command()
@click.argument("dataset")
@click.option("--out", type=click.Path(path_type=Path), help="The bundle's directory.  [default: saved_models/NAME]")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there already.")
@click.option("--name", help="The cascade's name, in its topics.  [default: the data set's]")
@click.option(
    "--arch",
    default="b-lenet",
    show_default=True,
    help="b-lenet, b-lenet-paper, b-alexnet, b-resnet[:DEPTH], branchy-vgg16, branchy-mobilenet; "
    "or FILE.py:FUNCTION, FILE.keras, keras:NAME.",
)
@click.option("--cut", metavar="LAYERS|auto[:N]", help="Where a Keras model is cut (branchy cuts).  [default: auto]")
@click.option(
    "--head", metavar="HEAD,...", help="Its exits: pool-dense, input, FILE.py:FUNCTION.  [default: pool-dense]"
)
@click.option("--preprocessing", metavar="HOW", help="In front of it: none, keras:NAME, FILE.py:FUNCTION.")
@click.option("--freeze-backbone", is_flag=True, help="Keep its weights; train the exits' heads alone.")
@click.option(
    "--label-mode",
    type=click.Choice(["int", "categorical", "binary"]),
    default="int",
    show_default=True,
    help="binary: a model of one output, for two classes; categorical: one-hot labels in an .npz.",
)
@click.option("--tiers", metavar="NAMES", help="The stages' names, device to cloud.  [default: the architecture's]")
@click.option("--height", type=click.IntRange(1), help="Resize to this height.  [default: 180 for a folder]")
@click.option("--width", type=click.IntRange(1), help="Resize to this width.  [default: 180 for a folder]")
@click.option("--batch-size", type=int, default=32, show_default=True, help="Samples a training step.")
@click.option("--epochs", type=int, default=20, show_default=True, help="Most passes over the training part.")
@click.option("--learning-rate", type=float, default=0.003, show_default=True, help="Of Adam.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same weights on one machine.")
@click.option("--validation-split", type=float, default=0.2, show_default=True, help="Share kept out of training.")
@click.option("--exit-weights", metavar="W,W,...", help="Weight of each exit's loss.  [default: all 1]")
@click.option(
    "--class-weights", metavar="none|balanced|W,W,...", help="balanced: same say for each class.  [default: none]"
)
@click.option("--augment", metavar="NAMES", help="flip, shift, erase, brightness, contrast; with commas between.")
@click.option("--schedule", type=click.Choice(["constant", "cosine", "step"]), help="Of the rate.  [default: constant]")
@click.option("--warmup-epochs", type=float, metavar="N", help="The learning rate rises over so many.  [default: 0]")
@click.option(
    "--distill", metavar="W[,T]", help="The last exit teaches the others: weight, temperature.  [default: no]"
)
@click.option("--mixed-precision", type=click.Choice(["auto", "on", "off"]), help="float16 on a GPU.  [default: auto]")
@click.option("--stop-on", type=click.Choice(["cascade", "loss"]), help="Which epoch is best.  [default: cascade]")
@click.option("--patience", type=int, metavar="N", help="Epochs without a better one before the end.  [default: 5]")
@click.option("--resume", is_flag=True, help="Go on from OUT.checkpoint, where a training was ended.")
@click.option("--log-dir", type=click.Path(path_type=Path), help="History as CSV and for TensorBoard, epoch by epoch.")
@click.option(
    "--policy",
    type=click.Choice(["max_prob", "margin", "entropy"]),
    default="max_prob",
    show_default=True,
    help="What an exit's threshold is compared with.",
)
@click.option("--threshold", multiple=True, metavar="[STAGE=]T", help="When an exit is sure.  [default: 0.8]")
@click.option("--target-share", metavar="P,P,...", help="Per cent that shall leave at each exit, such as 60,25,15.")
@uplink_option
@click.option(
    "--uplink-dtype",
    type=click.Choice(["float32", "float16", "uint8"]),
    default="float16",
    show_default=True,
    help="What activations travel in.",
)
@click.option(
    "--uplink-bytes", type=int, metavar="N", help="Most bytes of a bottleneck's body.  [default: the sample's]"
)
@click.option(
    "--uplink-accuracy",
    type=float,
    default=1.0,
    show_default=True,
    metavar="POINTS",
    help="What a bottleneck may lose.",
)
@click.option(
    "--formats",
    metavar="NAMES",
    default="litert,keras",
    show_default=True,
    help="Each stage's: litert, litert-float16, litert-int8, keras.",
)
def command(
    dataset: str,
    tiers: str | None,
    head: str | None,
    exit_weights: str | None,
    threshold: tuple[str, ...],
    target_share: str | None,
    augment: str | None,
    distill: str | None,
    class_weights: str | None,
    uplink: str,
    formats: str,
    **flags: Any,
) -> None:
    """Train a model with early exits on DATASET, cut it into a stage a tier, and write the bundle.

    DATASET is a folder with one sub-folder of images a class, an .npz file, or one of digits,
    fashion-mnist, mnist, cifar10.
    """
    from dataclasses import fields

    from branchy.core.cascade import parse_formats, parse_thresholds
    from branchy.models.wanted import Wanted
    from branchy.runner.recipe import Recipe
    from branchy.runner.training import TrainOptions, train
    from branchy.runner.training_summary import summary_lines

    recipe = {
        **{field.name: flags.pop(field.name) for field in fields(Recipe) if field.name in flags},
        "augment": tuple(name.strip() for name in augment.split(",")) if augment else None,
        "class_weights": _class_weights(class_weights),
        "distill": _numbers("--distill", distill),
    }
    wanted = {name: flags.pop(name) for name in ("cut", "preprocessing", "label_mode", "freeze_backbone")}
    options = TrainOptions(
        dataset,
        tiers=tuple(name.strip() for name in tiers.split(",")) if tiers else None,
        wanted=Wanted(heads=tuple(name.strip() for name in head.split(",")) if head else None, **wanted),
        exit_weights=_numbers("--exit-weights", exit_weights),
        recipe=Recipe(**{name: value for name, value in recipe.items() if value is not None}),
        thresholds=parse_thresholds(threshold),
        target_share=_numbers("--target-share", target_share),
        uplink=tuple(name.strip() for name in uplink.split(",")),
        formats=parse_formats(formats),
        command=_command_line(),
        **flags,
    )
    for line in summary_lines(train(options)):
        click.echo(line)


def _class_weights(text: str | None) -> str | tuple[float, ...] | None:
    names = ("none", "balanced")
    return text if text in names else _numbers("--class-weights", text, or_else="none, balanced or ")


def _numbers(flag: str, text: str | None, or_else: str = "") -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(
            f"expected {or_else}numbers with commas between, got {text!r}", param_hint=flag
        ) from None


def _command_line() -> str:
    import shlex
    import sys

    return shlex.join(["branchy", *sys.argv[1:]])
