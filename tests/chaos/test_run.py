"""`make chaos` tells what it has seen whatever ends it, and takes a tier that does not stop for a broken promise."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from chaos import run
from chaos.verdict import Verdict
from chaos.world import World

from branchy.errors import BranchyError

SEEN = Verdict("link: black hole", "", 12, Counter(confident=12), 0, 0, 0, 0, 0.1, None)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "kept"
    folder.mkdir()
    monkeypatch.setattr(run.tempfile, "mkdtemp", lambda **_: str(folder))
    monkeypatch.setattr(sys, "argv", ["chaos", "1"])
    return folder


def end_with(monkeypatch: pytest.MonkeyPatch, error: BaseException | None) -> None:
    def play_one(folder: Path, requests: int, seed: int, rate: float, verdicts: list[Verdict]) -> list[str]:
        verdicts.append(SEEN)
        if error is not None:
            raise error
        return []

    monkeypatch.setattr(run, "_run", play_one)


def test_a_run_that_keeps_every_promise_ends_well_and_leaves_nothing(folder, monkeypatch, capsys):
    end_with(monkeypatch, None)
    assert run.main() == 0
    assert "link: black hole" in capsys.readouterr().out
    assert not folder.exists()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BranchyError("edge-0 ended by itself"), "BROKEN: edge-0 ended by itself"),
        (KeyboardInterrupt(), "BROKEN: interrupted"),
        (AssertionError("expected shares"), "BROKEN: AssertionError: expected shares (error.log)"),
    ],
)
def test_whatever_ends_a_run_what_it_saw_before_is_told_and_the_logs_are_kept(folder, monkeypatch, capsys, error, said):
    end_with(monkeypatch, error)
    assert run.main() == 1
    out = capsys.readouterr().out
    assert "link: black hole" in out
    assert said in out.splitlines()
    assert f"logs are in {folder}" in out
    unforeseen = isinstance(error, AssertionError)
    assert (folder / "error.log").exists() == unforeseen
    assert not unforeseen or "Traceback" in (folder / "error.log").read_text()


def test_a_tier_that_does_not_stop_is_a_broken_promise(tmp_path):
    class Stubborn:
        terminate = staticmethod(lambda: None)

        def wait(self, timeout_s: float) -> int:
            raise subprocess.TimeoutExpired("branchy serve", timeout_s)

    log = tmp_path / "edge-0.log"
    log.write_text("waits for the brokers")
    child = SimpleNamespace(name="edge-0", log=log, popen=Stubborn(), last_words=lambda: "waits for the brokers")
    world: Any = SimpleNamespace(_children={("edge", 0): child})
    with pytest.raises(BranchyError, match=r"edge-0 was told to stop and still runs after 15 s: waits for the brokers"):
        World.stop(world, "edge", 0)
