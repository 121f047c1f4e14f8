"""`make_secrets.sh`, and the documents' way from one authority to another."""

from __future__ import annotations

import os
import shutil
import subprocess
from itertools import pairwise, product
from pathlib import Path

import pytest
from deployment import ROOT
from documents import shell_blocks

NAMES = ("broker", "operator", "device", "edge", "fog", "cloud")
APPLY = """#!/bin/sh
test "$*" = "deploy apply --overlay tls"
cp -r . "$APPLIED/$(ls "$APPLIED" | wc -l)"
"""


def trusts(one: Path, other: Path, name: str) -> bool:
    """Whether who has the first folder's authorities takes a certificate of the second's."""
    line = ["openssl", "verify", "-CAfile", str(one / "ca.pem"), str(other / f"{name}.pem")]
    return subprocess.run(line, capture_output=True, timeout=30).returncode == 0


@pytest.fixture
def applied(k8s: Path, tmp_path: Path) -> list[Path]:
    """The secrets as they were at first, and at each `apply` of the documents' commands."""
    tls = tmp_path / "deploy" / "k8s" / "overlays" / "tls"
    shutil.copytree(k8s / "overlays" / "tls", tls)
    noted, programs = tmp_path / "applied", tmp_path / "bin"
    shutil.copytree(tls / "secrets", noted / "0")
    programs.mkdir()
    (programs / "branchy").write_text(APPLY)
    (programs / "branchy").chmod(0o755)
    (commands,) = [block for block in shell_blocks(ROOT / "docs" / "security.md") if "old-ca" in block]
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "APPLIED": str(noted)}
    line = ["sh", "-euc", commands]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list((tls / "secrets").glob("*-ca.*"))
    return sorted(noted.iterdir())


def test_while_pods_are_replaced_those_of_before_and_those_of_after_trust_each_other(applied):
    assert len(applied) == 4
    for before, after in pairwise(applied):
        for one, other, name in product((before, after), (before, after), NAMES):
            assert trusts(one, other, name), f"{one.name} does not take {name} of {other.name}"


def test_in_the_end_nothing_of_the_old_authority_is_trusted(applied):
    first, last = applied[0], applied[-1]
    assert not any(trusts(last, first, name) for name in NAMES)
    assert not any(trusts(first, last, name) for name in NAMES)
