from __future__ import annotations

import sys
from pathlib import Path

import pytest

from branchy.cluster import kustomize
from branchy.errors import ClusterError


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
