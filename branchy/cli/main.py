"""The `branchy` command: a group whose commands are loaded when they are called."""

from __future__ import annotations

import importlib
import os
import sys

import click

from branchy import __version__
from branchy.errors import BranchyError

COMMANDS = {
    "train": "Train a model with early exits and write its bundle.",
    "cuts": "List where a Keras model can be cut.",
    "evaluate": "Measure a bundle on a test set, in this process.",
    "tune": "Choose the exits' thresholds, with a guarantee if wanted.",
    "inspect": "Show what is in a bundle.",
    "serve": "Run one tier.",
    "health": "Ask a tier how it is.",
    "device": "Send samples as a device does and record the answers.",
    "replay": "What other thresholds would have done to recorded requests.",
    "report": "Tables and plots from one or several CSVs.",
    "broker": "Run a broker on this machine.",
    "topics": "Create a cascade's topics on the brokers.",
    "dlq": "Show a tier's dead letters, and send them again.",
    "deploy": "Run a cascade on a Kubernetes cluster.",
    "demo": "Train, serve and measure on this machine in one go.",
}
"""Each command and its line in `branchy --help`; module `branchy.cli.NAME` defines `command`."""


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"branchy.cli.{cmd_name}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"branchy.cli.{cmd_name}.command is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands' lines from the table, without loading any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="branchy")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
def cli(verbose: bool) -> None:
    """Early-exit classifiers cut into stages and run as tiers, edge to cloud, over Kafka."""
    from branchy.logs import setup

    setup(verbose)


def main() -> None:
    """Run the command line; a BranchyError becomes one line on standard error and its exit code."""
    try:
        cli.main(standalone_mode=False)
    except BranchyError as error:
        click.echo(f"branchy: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("branchy: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output went away (`branchy ... | head`): nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
