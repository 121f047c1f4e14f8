"""Renders the manifests with kustomize, which comes with kubectl or alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from branchy.cluster.objects import Manifest
from branchy.errors import ClusterError, MissingExtraError, UsageError

try:
    import yaml
except ImportError:
    raise MissingExtraError("branchy deploy", "k8s") from None

RENDER_S = 120.0
"""A kustomization may name resources that have to be fetched."""

_CHECKOUT = "run branchy from a checkout (pip install --editable '.[k8s]' in it)"


def overlay(name: str, home: Path) -> Path:
    """The directory of an overlay.

    Args:
        name: of one beside branchy's own manifests, or the path of a directory with a kustomization.
        home: `deploy/k8s`.

    Raises:
        UsageError: there is none; the message says which there are, or that `home` is not there.
    """
    known = sorted(each.parent.name for each in (home / "overlays").glob("*/kustomization.yaml"))
    for folder in (home / "overlays" / name, Path(name)):
        if any((folder / f"kustomization.{ending}").is_file() for ending in ("yaml", "yml")):
            return folder.resolve()
    if not home.is_dir():
        raise UsageError(
            f"--overlay {name}: expected branchy's overlays in {home}, which is not there: {_CHECKOUT}, "
            "or give --overlay DIRECTORY with a kustomization.yaml"
        )
    raise UsageError(
        f"--overlay {name}: expected {'one of ' + ', '.join(known) + ', or ' if known else ''}"
        "the path of a directory with a kustomization.yaml"
    )


def component(name: str, home: Path, flag: str) -> Path:
    """The directory of one of branchy's kustomize components, which a flag takes.

    Raises:
        UsageError: it is not there.
    """
    folder = home / "components" / name
    if not folder.is_dir():
        raise UsageError(
            f"{flag}: expected the component {folder}, which is not there: {_CHECKOUT}, "
            f"or leave {flag} out and have your overlay take the component"
        )
    return folder


def render(folder: Path, components: Sequence[Path] = ()) -> list[Manifest]:
    """What a kustomization describes.

    Args:
        folder: the kustomization's.
        components: folders of kustomize components to add to it.

    Raises:
        ClusterError: neither kubectl nor kustomize is here, or the kustomization cannot be rendered.
    """
    command = _command()
    if not components:
        return _parse(folder, _run([*command, str(folder)], folder))
    with tempfile.TemporaryDirectory(prefix="branchy-deploy-") as scratch:
        root = Path(scratch).resolve()
        wanted = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(folder, root)],
            "components": [os.path.relpath(each, root) for each in components],
        }
        (root / "kustomization.yaml").write_text(yaml.safe_dump(wanted), encoding="utf-8")
        return _parse(folder, _run([*command, str(root)], folder))


def _command() -> list[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # beside branchy first
    for program, words in (("kubectl", ["kustomize"]), ("kustomize", ["build"])):
        found = shutil.which(program, path=path)
        if found is not None:
            return [found, *words]
    raise ClusterError(
        "branchy deploy renders the manifests with kubectl or kustomize; expected one of them, found none"
    )


def _run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "KUBECONFIG": os.devnull}  # some kubectls ask the cluster for its version first
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=RENDER_S, stdin=subprocess.DEVNULL, env=environment
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{folder}: not rendered within {RENDER_S:g} s") from None
    except OSError as error:
        raise ClusterError(f"{command[0]} cannot be run: {error.strerror}") from None
    if done.returncode:
        raise ClusterError(f"{folder} cannot be rendered: {' '.join(done.stderr.split())[:600]}")
    return done.stdout


def _parse(folder: Path, text: str) -> list[Manifest]:
    try:
        found = [each for each in yaml.safe_load_all(text) if each]
    except yaml.YAMLError as error:
        raise ClusterError(f"{folder}: what was rendered is no YAML: {' '.join(str(error).split())[:300]}") from None
    if not found:
        raise ClusterError(f"{folder}: expected objects, found none in the kustomization")
    return found
