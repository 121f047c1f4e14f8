from __future__ import annotations

import sys
from pathlib import Path

import pytest
from go_programs import KUSTOMIZE
from manifests import kustomize_program, render

from branchy.cluster import kustomize
from branchy.errors import BranchyError, ClusterError


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a `kubectl` of this text before all others."""

    def put(text: str) -> None:
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        path = tmp_path / "kubectl"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    return put


def test_rendering_asks_no_cluster(program, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", "/somebody/elses/config")
    program('echo "kind: $KUBECONFIG"')
    assert kustomize.render(tmp_path) == [{"kind": "/dev/null"}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo no such file >&2; exit 1", "cannot be rendered: no such file"),
        ("echo '{'", "is no YAML"),
        ("true", "expected objects, found none"),
    ],
)
def test_what_cannot_be_rendered_is_one_line(program, tmp_path, text, said):
    program(text)
    with pytest.raises(ClusterError, match=said) as raised:
        kustomize.render(tmp_path)
    assert "\n" not in str(raised.value)


def test_without_go_the_tests_render_with_kubectl(tmp_path):
    programs = tmp_path / "a b"
    programs.mkdir()
    (programs / "kubectl").write_text('#!/bin/sh\necho "kind: $*"\n')
    (programs / "kubectl").chmod(0o755)
    said: list[str] = []
    found = kustomize_program({"PATH": str(programs), "HOME": str(tmp_path)}, tmp_path, said.append)
    assert found.name == "kustomize"
    assert render(found, Path("overlays/x")) == [{"kind": "kustomize overlays/x"}]
    assert said[0].endswith(f"{programs}/kubectl renders the manifests")


def test_a_kustomize_that_go_has_built_comes_before_kubectl(tmp_path):
    (tmp_path / "kubectl").touch(mode=0o755)
    built = tmp_path / ".cache" / "branchy" / f"kustomize-{KUSTOMIZE.version}"
    built.parent.mkdir(parents=True)
    built.touch(mode=0o755)
    assert kustomize_program({"PATH": str(tmp_path), "HOME": str(tmp_path)}, tmp_path, print).resolve() == built


def test_without_go_and_kubectl_it_is_said_that_both_are_missing(tmp_path):
    with pytest.raises(BranchyError, match=r"no Go to build it .*; no kubectl either"):
        kustomize_program({"PATH": str(tmp_path), "HOME": str(tmp_path)}, tmp_path, print)
