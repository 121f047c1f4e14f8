"""`branchy deploy`: a cascade on a Kubernetes cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from branchy.cluster.api import Api
    from branchy.cluster.objects import Manifest
    from branchy.runner.deployment import DeployOptions


@click.group()
def command() -> None:
    """A cascade on a Kubernetes cluster: the manifests of deploy/k8s, planned, applied, watched, deleted."""


def _where(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say which deployment is meant."""
    for option in (
        click.option("--namespace", metavar="NAME", help="In place of the overlay's own."),
        click.option("--context", metavar="NAME", help="Of the kubeconfig.  [default: its current one]"),
        click.option(
            "--overlay",
            default="local",
            show_default=True,
            metavar="NAME|DIRECTORY",
            help="local, edge-cloud, tls, autoscale, or a kustomization of your own.",
        ),
    ):
        function = option(function)
    return function


def _what(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say what is deployed."""
    for option in (
        click.option("--force-conflicts", "force", is_flag=True, help="Take over fields that others have set."),
        click.option(
            "--message-limit",
            "limit_bytes",
            type=click.IntRange(1),
            metavar="BYTES",
            help="Largest message that the brokers take.  [default: what their settings say]",
        ),
        click.option("--replicas", multiple=True, metavar="[TIER=]N", help="Of every tier, or of one."),
        click.option(
            "--image",
            multiple=True,
            metavar="[NAME=]IMAGE",
            help="In place of all branchy's, or of one in the overlay.",
        ),
        click.option("--claim", metavar="NAME", help="Claim on the volume with the bundle.  [default: in the images]"),
        click.option(
            "--bundle",
            type=click.Path(path_type=Path),
            help="A copy of the bundle in images or volume, to check and to name.",
        ),
    ):
        function = option(function)
    return function


def _options(image: tuple[str, ...] = (), replicas: tuple[str, ...] = (), **given: Any) -> DeployOptions:
    from branchy.cluster.choices import parse_pairs, parse_replicas
    from branchy.runner.deployment import DeployOptions

    return DeployOptions(images=parse_pairs("--image", image), replicas=parse_replicas(replicas), **given)


def _open(options: DeployOptions) -> tuple[Api, list[Manifest]]:
    """The objects, and the cluster that they are for; the first line that is printed names it."""
    from branchy.cluster.api import Api
    from branchy.cluster.session import connect
    from branchy.runner.deployment import rendered

    manifests = rendered(options)
    api = Api(connect(options.context))
    click.echo(f"cluster {api.session.context} at {api.session.host}, Kubernetes {api.version()}", err=True)
    return api, manifests


@command.command()
@_where
@_what
def plan(**given: Any) -> None:
    """Say what `apply` would change, and change nothing.

    The API server is asked to try (a dry run), so that it finds what it would refuse: unknown fields, rights that
    are missing, names that are taken. Exit code 0, whether something would change or not.
    """
    from branchy.runner.deployment_plan import make_plan

    options = _options(**given)
    api, manifests = _open(options)
    for line in make_plan(api, manifests, force=options.force).lines():
        click.echo(line)


@command.command()
@_where
@_what
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(1), default=600, show_default=True, help="Seconds for each part."
)
def apply(timeout_s: float, **given: Any) -> None:
    """Apply an overlay and wait until all of it runs.

    Brokers first, then the topics, then the tiers. What is there already is changed to what the overlay says: pods
    whose bundle, image or settings change are replaced one by one. Applied again, nothing changes.
    """
    from branchy.runner.deployment_apply import apply as apply_all

    options = _options(**given)
    api, manifests = _open(options)
    done = apply_all(api, manifests, click.echo, force=options.force, timeout_s=timeout_s)
    click.echo("nothing changes" if done.changes_nothing else list(done.lines())[-1])


@command.command()
@_where
def status(**given: Any) -> None:
    """Show how brokers, topics and tiers are: replicas, answers by reason, latency, lag.

    The tiers are asked for their figures through the API server. Exit code 1 when something does not run.
    """
    from branchy.runner.deployment_status import status as ask

    found = ask(*_open(_options(**given)))
    for line in found.lines:
        click.echo(line)
    sys.exit(0 if found.ok else 1)


@command.command()
@click.argument("part", metavar="TIER")
@_where
@click.option("--tail", type=click.IntRange(0), default=100, show_default=True, help="Last lines of each pod.")
@click.option("--follow", is_flag=True, help="Go on with what they write.")
def logs(part: str, tail: int, follow: bool, **given: Any) -> None:
    """Show what the pods of TIER write; or of kafka, topics, device."""
    from branchy.runner.deployment_logs import logs as read

    for line in read(*_open(_options(**given)), part, tail=tail, follow=follow):
        click.echo(line)


@command.command()
@_where
@click.option("--data", is_flag=True, help="The brokers' disks and the namespaces too.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(1), default=600, show_default=True, help="Seconds for all of it."
)
def delete(data: bool, yes: bool, timeout_s: float, **given: Any) -> None:
    """Delete a deployment, and wait until nothing of it is left.

    The brokers' disks stay, and with them topics and offsets, unless --data is given.
    """
    from branchy.errors import UsageError
    from branchy.runner import deployment_delete

    api, manifests = _open(_options(**given))
    removal = deployment_delete.find(api, manifests, data=data)
    if removal.is_empty:
        click.echo("nothing to delete")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("expected --yes, since there is nobody to ask")
        click.confirm(removal.question(api.session.context), abort=True)
    deployment_delete.delete(api, removal, click.echo, timeout_s=timeout_s)
    click.echo("nothing is left" if data else "nothing is left but the data")
