"""`branchy health`: ask a tier's health port on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from branchy.cli import config_option


@click.command()
@click.option("--ready", is_flag=True, help="Ask whether it takes requests, not only whether it is alive.")
@click.option("--health-port", type=int, help="The tier's.")
@click.option("--health-host", metavar="ADDRESS", help="The tier's.  [default: 0.0.0.0, asked at 127.0.0.1]")
@config_option
def command(ready: bool, health_port: int | None, health_host: str | None, config: Path | None) -> None:
    """Print how a tier on this machine is, in one line; the exit code is 0 when it is well and 1 when it is not.

    Reads the same settings as `branchy serve` (BRANCHY_HEALTH_PORT, [health] in branchy.toml), so that a
    container's health check needs no curl and no shell.
    """
    from branchy.config import ProbeSettings, load
    from branchy.errors import BranchyError
    from branchy.runner.health_port import ask

    settings = load(ProbeSettings, {"health": {"port": health_port, "host": health_host}}, config)
    verdict = ask(settings.health, "ready" if ready else "live")
    if not verdict.ok:
        raise BranchyError(verdict.line)
    click.echo(verdict.line)
