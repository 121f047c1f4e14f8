from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from full_disk import files_of_at_most

import branchy
from branchy.datasets import load
from branchy.errors import TrainingError, UsageError
from branchy.models.checkpoint import CheckpointFile
from branchy.models.wanted import Wanted
from branchy.runner import training
from branchy.runner.fitting import checkpoint_path, fit_network, identity, remove_checkpoint
from branchy.runner.recipe import Recipe
from branchy.runner.training import TrainOptions

OWN_ARCH = f"{Path(__file__).parent.parent / 'support' / 'own_arch'}.py:build"
RECIPE = Recipe(
    augment=("flip", "shift"), schedule="cosine", warmup_epochs=0.5, class_weights="balanced", distill=(0.3, 2.0)
)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> TrainOptions:
    """A training with something of everything: dropout, batch normalisation, augmentation, a schedule."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    y = np.arange(240) % 3
    x = rng.integers(0, 60, (240, 8, 8), dtype=np.uint8)
    for i, label in enumerate(y):
        x[i, 2 * label : 2 * label + 3] += 150
    np.savez(folder / "blobs.npz", x_train=x[:200], y_train=y[:200], x_test=x[200:], y_test=y[200:])
    return TrainOptions(str(folder / "blobs.npz"), arch=OWN_ARCH, epochs=4, recipe=RECIPE)


def trained(options: TrainOptions, out: Path) -> tuple[list[np.ndarray], Any]:
    """Every variable of the network and the history."""
    data = load(options.dataset)
    parts, network = training._divide(data, options), training._build(data, options)
    wanted = training._thresholds(options, network, len(data.labels))
    history = fit_network(network, data, parts, options, wanted, out)
    return [variable.value.numpy() for variable in network.trained.variables], history


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
import test_fitting
from branchy.runner.training import TrainOptions
from branchy.models import checkpoint
fsync, epoch = os.fsync, 0
def die_in_the_third(descriptor):
    global epoch
    epoch += os.fstat(descriptor).st_size > 0 and Path(f"/proc/self/fd/{descriptor}").resolve().suffix == ".partial"
    if epoch == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(descriptor)
os.fsync = die_in_the_third
options = TrainOptions(sys.argv[1], arch=test_fitting.OWN_ARCH, epochs=4, recipe=test_fitting.RECIPE)
test_fitting.trained(options, Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_training_that_is_killed_and_resumed_is_to_the_bit_the_one_that_was_not(
    options: TrainOptions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The kill comes while the checkpoint of the third epoch is written, whose work is lost."""
    out = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, options.dataset, str(out), str(Path(__file__).parent), *sys.path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert checkpoint_path(out).with_name("killed.checkpoint.partial").exists()
    with caplog.at_level("INFO", "branchy"):
        variables, history = trained(replace(options, resume=True), out)
    assert "going on from" in caplog.text
    assert "after epoch 2" in caplog.text
    wanted, wanted_history = trained(options, tmp_path / "whole")
    assert history == wanted_history
    assert [v.tobytes() for v in variables] == [v.tobytes() for v in wanted]
    remove_checkpoint(out)
    remove_checkpoint(tmp_path / "whole")
    assert list(tmp_path.iterdir()) == []


def _identity(options: TrainOptions) -> dict[str, str]:
    data = load(options.dataset)
    return identity(data, training._divide(data, options), options)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"seed": 1}, "--seed"),
        ({"epochs": 5}, "--epochs"),
        ({"thresholds": {"camera": 0.5}}, "--thresholds"),
        ({"recipe": replace(RECIPE, distill=(0.3, 4.0))}, "--distill"),
        ({"recipe": replace(RECIPE, augment=("shift",))}, "--augment"),
        ({"recipe": replace(RECIPE, class_weights=(1.0, 2.0, 3.0))}, "--class-weights"),
        ({"wanted": Wanted(label_mode="categorical")}, "--label-mode"),
    ],
)
def test_another_option_is_another_training(options: TrainOptions, changed: dict[str, Any], name: str) -> None:
    was, now = _identity(options), _identity(replace(options, **changed))
    assert name in {key for key in was if was[key] != now[key]}


def test_where_it_goes_and_what_it_is_called_is_not(options: TrainOptions, tmp_path: Path) -> None:
    other = replace(options, out=tmp_path, name="n", overwrite=True, resume=True, log_dir=tmp_path, command="branchy x")
    assert _identity(other) == _identity(options)


def test_other_data_and_another_version_are(
    options: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    was = _identity(options)
    with np.load(options.dataset) as file:
        arrays = {name: file[name].copy() for name in file}
    arrays["x_train"][training._divide(load(options.dataset), options)["train"].indices[0], 0, 0] ^= 1
    np.savez(tmp_path / "one-pixel.npz", **arrays)
    assert _identity(replace(options, dataset=str(tmp_path / "one-pixel.npz")))["data"] != was["data"]
    monkeypatch.setattr("branchy.__version__", "0.0.0")
    assert _identity(options)["branchy"] == "0.0.0" != was["branchy"]


@pytest.mark.parametrize(
    "given",
    [
        lambda file: {"arch": f"{file}:f"},
        lambda file: {"arch": str(file)},  # as a saved model
        lambda file: {"arch": f"keras:VGG16:{file}"},  # as weights
        lambda file: {"wanted": Wanted(preprocessing=f"{file}:f")},
        lambda file: {"wanted": Wanted(preprocessing=f"{file.stem}:f")},
        lambda file: {"wanted": Wanted(heads=("pool-dense", f"{file}:f"))},
    ],
    ids=["arch", "saved", "weights", "preprocessing", "module", "head"],
)
def test_another_content_of_a_file_of_ones_own_is_another_training(
    given: Callable[[Path], dict[str, Any]], options: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    found, file = [], tmp_path / "my_own.py"
    for content in ("f = 1\n", "f = 2\n"):
        file.write_text(content)
        found.append(_identity(replace(options, **given(file))))
    was, now = found
    assert {key for key in was if was[key] != now[key]} == {f"content of {file}"}


@pytest.mark.parametrize(
    ("where", "now", "name"),
    [
        ("branchy.models.precision.worthwhile", lambda: True, "mixed precision here"),
        ("branchy.models.training.devices", lambda: ["GPU:0", "GPU:1"], "number of GPUs"),
    ],
)
def test_what_computes_is_part_of_a_training(
    where: str, now: Any, name: str, options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    was = _identity(options)
    monkeypatch.setattr(where, now)
    assert {key for key, value in _identity(options).items() if was[key] != value} == {name}


@pytest.mark.parametrize("file", ["core/calibration.py", "core/policies.py", "core/tuning.py", "models/stopping.py"])
def test_other_code_that_finds_the_best_epoch_is_another_training(
    file: str, options: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "branchy"
    shutil.copytree(Path(branchy.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr("branchy.__file__", str(copy / "__init__.py"))
    was = _identity(options)
    with (copy / file).open("a") as code:
        code.write("# changed\n")
    assert {key for key, value in _identity(options).items() if was[key] != value} == {"branchy's code"}


def test_a_checkpoint_of_another_training_is_refused_before_a_step_is_done(
    options: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = replace(options, epochs=1)
    trained(one, tmp_path / "b")
    before = checkpoint_path(tmp_path / "b").read_bytes()
    monkeypatch.setattr("branchy.models.steps.Steps.run", lambda *args: pytest.fail("trained"))
    with pytest.raises(UsageError, match=r"is of another training: expected --seed 7, got 0; give what it was begun"):
        trained(replace(one, seed=7, resume=True), tmp_path / "b")
    assert checkpoint_path(tmp_path / "b").read_bytes() == before


def test_logs_have_an_epoch_as_soon_as_it_is_done_and_all_of_them_after_a_resume(
    options: TrainOptions, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    short = replace(options, epochs=2, log_dir=logs)
    with pytest.MonkeyPatch.context() as patch:
        write = CheckpointFile.write

        def fail_in_the_second(self: CheckpointFile, progress: Any) -> None:
            if len(progress.values["history"]["loss"]) == 2:
                assert len((logs / "history.csv").read_text().splitlines()) == 2
                raise KeyboardInterrupt
            write(self, progress)

        patch.setattr(CheckpointFile, "write", fail_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            trained(short, tmp_path / "b")
    trained(replace(short, resume=True), tmp_path / "b")
    rows = (logs / "history.csv").read_text().splitlines()
    assert [row.split(";")[0] for row in rows] == ["epoch", "1", "2"]
    assert len(list(logs.glob("events.out.tfevents.*"))) == 2


@pytest.mark.parametrize("full", ["history.csv", "events"])
def test_a_disk_that_fills_up_under_the_logs_ends_the_training_in_one_line_and_keeps_its_checkpoint(
    full: str, options: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as disk:
        write = CheckpointFile.write

        def write_the_last(self: CheckpointFile, progress: Any) -> None:
            write(self, progress)
            disk.enter_context(files_of_at_most(100))

        monkeypatch.setattr(CheckpointFile, "write", write_the_last)
        if full == "events":
            monkeypatch.setattr("branchy.reports.history.write_csv", lambda *args: None)
        with pytest.raises(
            TrainingError, match=r"--log-dir .*logs: cannot be written: .*File too large.*--resume"
        ) as caught:
            trained(replace(options, log_dir=tmp_path / "logs"), tmp_path / "b")
    assert "\n" not in str(caught.value)
    assert checkpoint_path(tmp_path / "b").is_file()


def test_a_disk_without_room_for_a_log_is_found_before_the_training(options: TrainOptions, tmp_path: Path) -> None:
    with files_of_at_most(10), pytest.raises(UsageError, match=r"--log-dir .*: cannot be written: .*File too large"):
        trained(replace(options, log_dir=tmp_path / "logs"), tmp_path / "b")


def test_a_log_that_cannot_be_written_is_wrong_use(options: TrainOptions, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--log-dir .*file: cannot be written: File exists"):
        trained(replace(options, log_dir=tmp_path / "file"), tmp_path / "b")
