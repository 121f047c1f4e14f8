from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from toy_data import toy_dataset

from branchy.store.bundle import Bundle

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "toy.npz"
    toy_dataset(path, 600)
    return path


def test_it_prints_what_the_thresholds_do_and_writes_the_bundle(
    run: Run, toy_bundle: Bundle, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tuned"
    code, text, _ = run("tune", toy_bundle.path, data, "--unseen", "--alpha", "0.1", "--out", out)
    assert code == 0
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[4:8]] == ["edge", "cloud", "cascade", "full"]
    assert lines[9].startswith("promised with probability 95 %: accuracy is at most 10 % below the full model's; ")
    assert lines[-1].startswith(f"bundle {out} (")
    certificate = Bundle.load(out).manifest.certificate
    assert certificate is not None
    assert certificate.alpha == 0.1


def test_options_reach_the_tuning(run: Run, toy_bundle: Bundle, data: Path, tmp_path: Path) -> None:
    out = ["--unseen", "--overwrite", "--out", tmp_path / "tuned"]
    _, text, _ = run("tune", toy_bundle.path, data, *out, "--threshold", "edge=0.25", "--policy", "entropy")
    assert "entropy <= 0.25" in text
    assert "nothing is promised of these thresholds" in text
    _, text, _ = run("tune", toy_bundle.path, data, *out, "--target-share", "50,50", "--format", "keras")
    assert "keras" in text
    options = ["--alpha", "0.1", "--loss", "disagreement", "--guarantee", "expected", "--cost", "flops"]
    _, text, _ = run("tune", toy_bundle.path, data, *out, *options)
    assert "promised on average: at most 10 % of the answers name another class than the full model" in text


def test_other_certified_thresholds_are_taken_without_data(
    run: Run, toy_bundle: Bundle, data: Path, tmp_path: Path
) -> None:
    run("tune", toy_bundle.path, data, "--unseen", "--alpha", "0.1", "--out", tmp_path / "tuned")
    code, text, _ = run("tune", tmp_path / "tuned", "--certified", "1", "--out", tmp_path / "safest")
    assert code == 0
    promise, where = text.strip().split("\n\n")
    assert "these thresholds, 1 of " in promise
    assert where == f"bundle {tmp_path / 'safest'} ({Bundle.load(tmp_path / 'safest').digest[:12]})"
    for line, said in (
        ([], "branchy: expected DATASET to choose thresholds by, or --certified N without one"),
        ([data, "--certified", "1"], "branchy: --certified takes no DATASET: "),
    ):
        code, _, err = run("tune", tmp_path / "tuned", *line, "--out", tmp_path / "x")
        assert code == 2
        assert err.startswith(said)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        ([], 2, "branchy: expected one of --target-share, --target-accuracy, --target-cost, --alpha, --certified, "),
        (["--alpha", "0.1"], 2, "branchy: data set toy: what training kept for this is not in it as it was"),
        (["--unseen", "--alpha", "0.001"], 1, "branchy: too few samples to promise an accuracy gap to the full model"),
        (["--target-share", "a,b"], 2, "Error: Invalid value for --target-share: expected numbers"),
    ],
)
def test_what_goes_wrong_is_one_line_and_leaves_nothing(
    run: Run, toy_bundle: Bundle, data: Path, tmp_path: Path, options: list[str], code: int, line: str
) -> None:
    found, out, err = run("tune", toy_bundle.path, data, "--out", tmp_path / "tuned", *options)
    assert (found, out) == (code, "")
    assert err.splitlines()[-1].startswith(line)
    assert list(tmp_path.iterdir()) == []
