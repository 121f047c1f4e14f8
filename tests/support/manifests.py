"""The Kubernetes manifests as kustomize renders them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployment import ROOT
from go_programs import KUSTOMIZE

from branchy.errors import BranchyError

OVERLAYS = ("local", "edge-cloud", "autoscale", "tls")
OF_VOLUME = "with-volume"
"""An overlay as a user would write it: `tls` with the bundle on a volume."""

BUNDLE_DIGEST = 8 * "00c0ffee"

KUSTOMIZATIONS = (".", *(f"overlays/{name}" for name in OVERLAYS), OF_VOLUME)
Manifest = dict[str, Any]


def kustomize_program(environment: Mapping[str, str], folder: Path, say: Callable[[str], None]) -> Path:
    """A program `kustomize` in a folder: the one that Go builds, or without Go the one that is in kubectl.

    Raises:
        BranchyError: there is neither.
    """
    program = folder / "kustomize"
    try:
        program.symlink_to(KUSTOMIZE.find(environment, say))
    except BranchyError as error:
        kubectl = shutil.which("kubectl", path=environment.get("PATH"))
        if kubectl is None:
            raise BranchyError(f"{error}; no kubectl either, which has one in it") from None
        say(f"{error}: {kubectl} renders the manifests")
        program.write_text(f'#!/bin/sh\n[ "$1" = build ] && shift\nexec {shlex.quote(kubectl)} kustomize "$@"\n')
        program.chmod(0o755)
    return program


def copy_with_secrets(folder: Path, *more_names: str) -> Path:
    """A copy of the manifests in which the secrets of `tls` are made, and the bundle may come from a volume."""
    if shutil.which("openssl") is None:
        words = "no openssl here, which makes the certificates"
        pytest.fail(words, pytrace=False) if os.environ.get("CI") else pytest.skip(words)
    copy = folder / "k8s"
    shutil.copytree(ROOT / "deploy" / "k8s", copy, ignore=shutil.ignore_patterns("secrets"))
    make = copy / "overlays" / "tls" / "make_secrets.sh"
    done = subprocess.run(["sh", str(make), "branchy", *more_names], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (copy / OF_VOLUME).mkdir()
    own = {
        "namespace": "branchy",
        "resources": ["../overlays/tls"],
        "components": ["../components/bundle-volume"],
        "configMapGenerator": [{"name": "bundle", "literals": [f"digest={BUNDLE_DIGEST}"]}],
    }
    (copy / OF_VOLUME / "kustomization.yaml").write_text(yaml.safe_dump(own))
    return copy


def render(kustomize: Path, kustomization: Path) -> list[Manifest]:
    """What `kubectl apply -k` would send."""
    line = [str(kustomize), "build", str(kustomization)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """One of them; of a ConfigMap or Secret the name before kustomize's hash will do."""
    (found,) = [
        m
        for m in manifests
        if m["kind"] == kind and (m["metadata"]["name"] == name or m["metadata"]["name"].rpartition("-")[0] == name)
    ]
    return found


def pods(manifests: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Everything that makes pods, each with the spec of its pods."""
    for manifest in manifests:
        if "template" in manifest.get("spec", {}):
            yield manifest, manifest["spec"]["template"]["spec"]


def containers(pod: Manifest) -> list[Manifest]:
    """All of a pod's."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def variables(container: Manifest, manifests: list[Manifest]) -> dict[str, str]:
    """A container's variables with their values; those that come from the pod have none to tell."""
    out: dict[str, str] = {}
    for source in container.get("envFrom", []):
        out |= named(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    return out | {each["name"]: each.get("value", "") for each in container.get("env", [])}
