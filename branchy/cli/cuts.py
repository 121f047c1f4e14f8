"""`branchy cuts`: where a Keras model can be cut."""

from __future__ import annotations

import click

from branchy.cli import uplink_option


@click.command()
@click.argument("arch")
@click.option("--shape", required=True, metavar="H,W,C", help="Of a sample, such as 224,224,3.")
@click.option("--classes", type=click.IntRange(2), default=10, show_default=True, help="For a model built anew.")
@click.option("--cut", metavar="LAYERS|auto[:N]", help="Cuts to mark.  [default: auto]")
@uplink_option
def command(arch: str, shape: str, classes: int, cut: str | None, uplink: str) -> None:
    """List the layers of ARCH after which one tensor carries everything, for --cut of `branchy train`.

    ARCH is as for `branchy train`: path/to/file.py:function, path/to/model.keras or keras:NAME. With
    each cut come its shape, the bytes of a request and the share of the model's FLOPs before it.
    Of an architecture that says itself where it is cut, such as b-alexnet, it lists the stages with
    their parameters and FLOPs, those of the full model, and what each cut sends.
    """
    from branchy.models.wanted import Sends, Wanted
    from branchy.runner.architecture import cuts_text

    sends = Sends(tuple(name.strip() for name in uplink.split(",")))
    click.echo(cuts_text(arch, _shape(shape), classes, Wanted(cut=cut), sends))


def _shape(text: str) -> tuple[int, ...]:
    try:
        sides = tuple(int(part) for part in text.split(","))
    except ValueError:
        sides = ()
    if len(sides) != 3 or min(sides) < 1:
        raise click.BadParameter(f"expected height,width,channels, got {text!r}", param_hint="--shape")
    return sides
