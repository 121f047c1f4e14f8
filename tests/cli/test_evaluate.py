from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import toy_bundle as toy

from branchy.reports.csv import read_csv
from branchy.store.bundle import Bundle

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "toy.npz"
    batch = toy.samples(40, seed=1)
    arrays = {"x_train": toy.samples(3), "y_train": np.arange(3), "x_test": batch}
    classes = toy.cloud_logits(batch).argmax(axis=1)
    np.savez(path, **arrays, y_test=classes, labels=np.array(toy.LABELS), range=np.array([0, 16]))
    return path


def test_it_prints_the_tables_and_writes_what_is_asked_for(
    run: Run, toy_bundle: Bundle, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "evaluation"
    code, text, _ = run("evaluate", toy_bundle.path, data, "--csv", tmp_path / "results.csv", "--out", out)
    assert code == 0
    assert [line.split()[0] for line in text.splitlines()[4:7]] == ["edge", "cloud", "all"]
    assert "does it pay? Uplink 10 Mbit/s, round trip 20 ms, computers as fast as this one" in text
    assert len(read_csv(tmp_path / "results.csv").rows) == 40
    assert {"exits.csv", "reliability.png", "pareto.png", "sweep.csv"} < {path.name for path in out.iterdir()}
    assert text.splitlines()[-1].startswith(f"written to {out}: exits.csv, ")


def test_options_reach_the_cascade(run: Run, toy_bundle: Bundle, data: Path) -> None:
    _, out, _ = run("evaluate", toy_bundle.path, data, "--policy", "entropy", "--threshold", "edge=0.25")
    assert "entropy <= 0.25" in out
    _, out, _ = run("evaluate", toy_bundle.path, data, "--stage", "full", "--format", "keras", "--batch-size", "1")
    assert "keras" in out
    assert [line.split()[0] for line in out.splitlines()[4:]] == ["full", "all"]
    _, out, _ = run("evaluate", toy_bundle.path, data, "--uplink-mbit", "2.5", "--rtt-ms", "3", "--slower", "4,1")
    assert "does it pay? Uplink 2.5 Mbit/s, round trip 3 ms, computers 4, 1 times slower" in out


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--threshold", "1.5"], "stage edge: threshold for policy max_prob must be in 0..1, got 1.5"),
        (["--threshold", "high"], "threshold: expected one number, or STAGE=NUMBER once a stage, got high"),
        (["--threshold", "fog=0.5"], "no stage 'fog' in this bundle; it has edge, hall, cloud, full"),
        (["--stage", "fog"], "no stage 'fog' in this bundle; it has edge, hall, cloud, full"),
        (["--stage", "edge", "--threshold", "0.5"], "with stage edge every sample goes to one exit"),
        (["--stage", "edge", "--out", "x"], "--out is about the whole cascade: leave --stage out"),
        (["--out", "/proc/none"], "cannot write an evaluation to /proc/none"),
        (["--rtt-ms", "1,2"], "--rtt-ms: expected one number from 0 up for every cut, or 1, one a cut, got 1,2"),
        (["--csv", "/proc/none/results.csv"], "cannot write results to /proc/none/results.csv"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    run: Run, toy_bundle: Bundle, data: Path, options: list[str], line: str
) -> None:
    code, out, err = run("evaluate", toy_bundle.path, data, *options)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"branchy: {line}")


def test_numbers_that_are_none_are_wrong_use(run: Run, toy_bundle: Bundle, data: Path) -> None:
    code, out, err = run("evaluate", toy_bundle.path, data, "--slower", "fast")
    assert (code, out) == (2, "")
    assert "expected numbers with commas between, got 'fast'" in err


def test_another_data_set_is_wrong_use(run: Run, toy_bundle: Bundle) -> None:
    code, _, err = run("evaluate", toy_bundle.path, "digits")
    assert code == 2
    assert "expected the bundle's classes ant, bee, cat, got 0, 1, 2" in err
