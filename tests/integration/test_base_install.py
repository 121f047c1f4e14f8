"""The base package alone, in an environment of its own: small, without TensorFlow, and a cascade runs on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from branchy.brokers.embedded import EmbeddedBroker
from branchy.datasets import load
from branchy.reports.csv import read_csv
from branchy.runner.processes import Interrupts, Processes
from branchy.store.bundle import Bundle

ROOT = Path(__file__).parents[2]
MOST_BYTES = 250_000_000
HEAVY = ("tensorflow", "keras", "pandas", "kubernetes", "sklearn", "matplotlib", "PIL")
SAMPLES = 100
TIMEOUT_S = 60.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def _size_bytes(folder: Path) -> int:
    """What it takes on the disk."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


class Base:
    """A fresh environment with the base package, and how much room the package took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        before = _size_bytes(folder)
        self._install(folder.parent / "source")
        self.added_bytes = _size_bytes(folder) - before

    def _install(self, source: Path) -> None:
        # A copy: pip builds in place, and would leave its build folder in the checkout.
        shutil.copytree(ROOT / "branchy", source / "branchy", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source)
        line = [self.bin / "python", "-m", "pip", "install", "-c", ROOT / "constraints.txt", source]
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode and "Retrying (" in done.stderr and not os.environ.get("CI"):
            pytest.skip(f"pip cannot reach its index: {done.stderr.strip().splitlines()[-1]}")
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, away from the checkout."""
        line = [str(self.bin / program), *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, cwd=self.folder, timeout=120)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return Base(tmp_path_factory.mktemp("base") / "venv")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits as an `.npz`: scikit-learn, which ships them, is not in the environment."""
    digits = load("digits")
    x, y = digits.test.read(np.arange(SAMPLES))
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y, labels=np.array(digits.labels), range=np.array([0, 16]))
    return path


def test_it_takes_at_most_250_mb(base: Base) -> None:
    print(f"the base package and what it needs take {base.added_bytes / 1e6:.0f} MB")
    assert base.added_bytes <= MOST_BYTES


def test_nothing_heavy_is_there(base: Base) -> None:
    code = f"import branchy, importlib.util as u; print(branchy.__file__, [n for n in {HEAVY} if u.find_spec(n)])"
    where, found = base.run("python", "-c", code).stdout.split(" ", 1)
    assert Path(where).is_relative_to(base.folder)
    assert found == "[]\n"


def test_the_commands_explain_themselves(base: Base) -> None:
    for arguments in (["--help"], ["serve", "--help"], ["device", "--help"], ["evaluate", "--help"]):
        done = base.run("branchy", *arguments)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("Usage: branchy")


def test_what_needs_an_extra_names_its_install_line(base: Base, digits_bundle: Bundle, data: Path) -> None:
    for arguments in (["train", data, "--out", base.folder / "out"], ["evaluate", digits_bundle.path, "digits"]):
        done = base.run("branchy", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert "pip install 'branchy[train]'" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_bundle_is_inspected_and_evaluated(base: Base, digits_bundle: Bundle, data: Path) -> None:
    shown = base.run("branchy", "inspect", digits_bundle.path)
    assert digits_bundle.digest in shown.stdout
    done = base.run("branchy", "evaluate", digits_bundle.path, data)
    assert done.returncode == 0, done.stderr
    assert ["all", str(SAMPLES)] in [line.split()[:2] for line in done.stdout.splitlines()]


def test_tiers_and_a_device_run_on_it(
    base: Base, digits_bundle: Bundle, data: Path, embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    common = ["--bundle", digits_bundle.path, "--back", embedded_broker.brokers, "--cascade", "base-install"]
    with Interrupts() as interrupts, Processes(interrupts, tmp_path) as processes:
        tiers = [stage.name for stage in digits_bundle.spec.stages]
        children = []
        for tier in tiers:
            ready = tmp_path / f"{tier}.ready"
            line = [base.bin / "branchy", "serve", "--tier", tier, "--ready-file", ready, *common]
            children.append((processes.start(tier, [str(word) for word in line]), ready))
        for child, ready in children:
            processes.wait_for_file(child, ready, TIMEOUT_S)
        done = base.run("branchy", "device", data, *common, "--csv", tmp_path / "results.csv", "--deadline-ms", 20_000)
    assert done.returncode == 0, done.stderr
    rows = read_csv(tmp_path / "results.csv").rows
    assert len(rows) == SAMPLES
    assert {row.tier for row in rows} == set(tiers)
    assert {row.reason for row in rows} == {"confident", "final"}
    assert sum(row.predicted == row.expected for row in rows) > 0.8 * SAMPLES
