"""`branchy dlq`: a tier's dead letters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from branchy.cli import bundle_option, cascade_option, config_option

if TYPE_CHECKING:
    from branchy.config import DeviceSettings


@click.group()
def command() -> None:
    """What a tier could not read or run: look at it, and send it again."""


def _of_a_tier(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say whose dead letters are meant."""
    for option in (
        config_option,
        cascade_option,
        click.option("--back", metavar="HOST:PORT", help="The tier's brokers.  [default: those of this machine]"),
        click.option("--tier", help="Whose dead letters.  [default: the first stage's]"),
        bundle_option,
    ):
        function = option(function)
    return function


def _settings(
    bundle: Path | None, tier: str | None, back: str | None, cascade: str | None, config: Path | None
) -> DeviceSettings:
    from branchy.config import DeviceSettings, load

    flags = {"bundle": bundle, "tier": tier, "cascade": cascade, "back": {"brokers": back}}
    return load(DeviceSettings, flags, config)


@command.command()
@_of_a_tier
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=20, show_default=True, help="How many of the newest to list."
)
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def show(limit: int, as_json: bool, **given: Any) -> None:
    """List a tier's dead letters: age, size, code, request and reason.

    They stay as they are, and are gone when the topic's retention has passed. The last column is what
    the tier said of the message, and may quote it.
    """
    import json

    from branchy.runner import dead_letters

    listing = dead_letters.show(_settings(**given), limit=limit)
    if as_json:
        click.echo(json.dumps(dead_letters.as_data(listing.newest), indent=2, ensure_ascii=False))
    else:
        click.echo(dead_letters.text(listing))


@command.command()
@_of_a_tier
@click.option("--code", "codes", multiple=True, help="Those of this code; may be given again.")
@click.option("--id", "requests", multiple=True, help="Those of this request; may be given again.")
@click.option("--all", "every", is_flag=True, help="All of them.")
def redrive(codes: tuple[str, ...], requests: tuple[str, ...], every: bool, **given: Any) -> None:
    """Send chosen dead letters to their tier again, as they first came.

    With both --code and --id those that fit both. Each asks for its answer where it did at first: a requester
    that has ended meanwhile, or has given the request up, does not get it. They stay in the dead letters, so that
    the same again sends them again.
    """
    from branchy.runner import dead_letters

    choice = dead_letters.Choice(codes, requests, every)
    click.echo(dead_letters.outcome(dead_letters.redrive(_settings(**given), choice)))
