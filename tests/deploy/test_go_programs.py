from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from go_programs import KEDA, KUSTOMIZE, TOXIPROXY, GoProgram, fetch_module

from branchy.errors import BranchyError

every = pytest.mark.parametrize("program", [TOXIPROXY, KUSTOMIZE], ids=lambda each: each.name)


def environment(tmp_path: Path, go: str | None) -> dict[str, str]:
    """A cache of its own, and a Go that is a script."""
    programs = tmp_path / "bin"
    programs.mkdir()
    if go is not None:
        (programs / "go").write_text(f"#!/bin/sh\n{go}\n")
        (programs / "go").chmod(0o755)
    return {"PATH": f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin" if go else str(programs), "HOME": str(tmp_path)}


@every
def test_it_is_built_once_into_the_cache(tmp_path: Path, program: GoProgram):
    said: list[str] = []
    env = environment(tmp_path, '[ "$1" = install ] && echo "$2" > "$GOBIN/program"')
    built = program.find(env, said.append)
    assert built == tmp_path / ".cache" / "branchy" / f"{program.name.lower()}-{program.version}"
    assert built.read_text() == f"{program.package}@v{program.version}\n"
    assert program.find({**env, "PATH": ""}, said.append) == built
    assert len(said) == 1
    assert list(built.parent.iterdir()) == [built]


@every
def test_without_go_it_says_what_is_missing(tmp_path: Path, program: GoProgram):
    with pytest.raises(BranchyError, match=rf"no {program.name} here: .*no Go to build it \(Debian: golang-go\)"):
        program.find(environment(tmp_path, None), print)


@every
def test_a_build_that_fails_is_told_with_gos_last_word_and_leaves_nothing(tmp_path: Path, program: GoProgram):
    with pytest.raises(BranchyError, match=f"Go could not build {program.name}: no network"):
        program.find(environment(tmp_path, "echo no network >&2; exit 1"), print)
    assert list((tmp_path / ".cache" / "branchy").iterdir()) == []


def test_a_modules_folder_is_where_go_says_that_it_is(tmp_path: Path):
    answer = json.dumps({"Dir": str(tmp_path / "sources")})
    env = environment(tmp_path, f"""[ "$*" = "mod download -json {KEDA}" ] && echo '{answer}'""")
    assert fetch_module(KEDA, env) == tmp_path / "sources"


def test_a_module_that_cannot_be_fetched_is_told_with_gos_last_word(tmp_path: Path):
    with pytest.raises(BranchyError, match=r"Go could not fetch example\.org/module@v1: not known"):
        fetch_module("example.org/module@v1", environment(tmp_path, "echo not known >&2; exit 1"))
