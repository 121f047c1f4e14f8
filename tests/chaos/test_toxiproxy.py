from __future__ import annotations

import os
from pathlib import Path

import pytest
from chaos.toxiproxy import VERSION, find_toxiproxy

from branchy.errors import BranchyError


def environment(tmp_path: Path, go: str | None) -> dict[str, str]:
    """A cache of its own, and a Go that is a script."""
    programs = tmp_path / "bin"
    programs.mkdir()
    if go is not None:
        (programs / "go").write_text(f"#!/bin/sh\n{go}\n")
        (programs / "go").chmod(0o755)
    return {"PATH": f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin" if go else str(programs), "HOME": str(tmp_path)}


def test_it_is_built_once_into_the_cache(tmp_path):
    said: list[str] = []
    env = environment(tmp_path, 'echo "$2" > "$GOBIN/server"')
    built = find_toxiproxy(env, said.append)
    assert built == tmp_path / ".cache" / "branchy" / f"toxiproxy-{VERSION}"
    assert built.read_text() == f"github.com/Shopify/toxiproxy/v2/cmd/server@v{VERSION}\n"
    assert find_toxiproxy({**env, "PATH": ""}, said.append) == built
    assert len(said) == 1


def test_without_go_it_says_what_is_missing(tmp_path):
    with pytest.raises(BranchyError, match="no Go to build it"):
        find_toxiproxy(environment(tmp_path, None), print)


def test_a_build_that_fails_is_told_with_gos_last_word_and_leaves_nothing(tmp_path):
    with pytest.raises(BranchyError, match="Go could not build Toxiproxy: no network"):
        find_toxiproxy(environment(tmp_path, "echo no network >&2; exit 1"), print)
    assert list((tmp_path / ".cache" / "branchy").iterdir()) == []
