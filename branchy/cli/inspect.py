"""`branchy inspect`: show what is in a bundle."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--digest", metavar="SHA256", help="The digest that it must have.  [default: any]")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(bundle: Path, digest: str | None, as_json: bool) -> None:
    """Show what is in BUNDLE: stages, tensors, sizes, exits, thresholds, digest.

    Every file is held against the manifest first; one that was changed, cut or is missing is
    named, and the exit code is 1; so it is for a bundle that is whole, but not the one of --digest.
    """
    import json

    from branchy.runner.inspection import describe, text
    from branchy.store.bundle import Bundle

    data = describe(Bundle.load(bundle, digest))
    click.echo(json.dumps(data, indent=2, ensure_ascii=False) if as_json else text(data))
