from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from branchy.store.bundle import Bundle

Run = Callable[..., tuple[int, str, str]]


def test_it_prints_the_bundle(run: Run, toy_bundle: Bundle) -> None:
    code, out, _ = run("inspect", toy_bundle.path)
    assert code == 0
    assert toy_bundle.digest in out
    assert "max_prob >= 0.8" in out


def test_json_can_be_read_by_a_program(run: Run, toy_bundle: Bundle) -> None:
    code, out, _ = run("inspect", toy_bundle.path, "--json")
    assert code == 0
    assert json.loads(out)["digest"] == toy_bundle.digest


def test_a_changed_bundle_is_one_line_and_exit_code_1(run: Run, toy_bundle: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(toy_bundle.path, tmp_path / "copy"))
    (copy / "edge.tflite").write_bytes(b"weights")
    code, out, err = run("inspect", copy)
    assert (code, out) == (1, "")
    assert err.startswith(f"branchy: bundle {copy}: edge.tflite: expected ")
    assert err.count("\n") == 1


def test_no_bundle_is_one_line_and_exit_code_1(run: Run, tmp_path: Path) -> None:
    code, out, err = run("inspect", tmp_path / "none")
    assert (code, out) == (1, "")
    assert err == (
        f"branchy: bundle {tmp_path}/none: nothing is there; make a bundle with: "
        f"branchy train DATASET --out {tmp_path}/none\n"
    )


def test_another_bundle_than_that_of_the_digest_is_one_line_and_exit_code_1(run: Run, toy_bundle: Bundle) -> None:
    assert run("inspect", toy_bundle.path, "--digest", toy_bundle.digest.upper())[0] == 0
    for other in ("0" * 64, toy_bundle.digest[:63], ""):
        code, out, err = run("inspect", toy_bundle.path, "--digest", other)
        assert (code, out) == (1, "")
        expected = f"expected digest {other}, got {toy_bundle.digest}; put the bundle with that digest there"
        assert err == f"branchy: bundle {toy_bundle.path}: {expected}\n"
