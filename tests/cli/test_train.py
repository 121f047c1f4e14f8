from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from branchy.errors import TrainingError
from branchy.models.wanted import Wanted
from branchy.runner import training
from branchy.runner.recipe import Recipe
from branchy.runner.training import TrainOptions

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[TrainOptions]:
    """What was asked of `train`, which then fails."""
    options: list[TrainOptions] = []

    def fail(asked_for: TrainOptions) -> Any:
        options.append(asked_for)
        raise TrainingError("enough")

    monkeypatch.setattr(training, "train", fail)
    return options


def test_every_flag_arrives(run: Run, asked: list[TrainOptions]) -> None:
    flags = (
        "--out o --overwrite --name n --arch a.py:f --tiers x,y,z --height 20 --width 30 --batch-size 4 --epochs 5 "
        "--learning-rate 0.1 --seed 6 --validation-split 0.3 --exit-weights 1,2,3 --policy margin "
        "--class-weights balanced --augment flip,erase --schedule step --warmup-epochs 1.5 --distill 0.5,3 "
        "--mixed-precision off --stop-on loss --patience 7 --resume --log-dir l "
        "--threshold x=0.5,y=0.6 --uplink sample,bottleneck --uplink-dtype uint8 --uplink-bytes 90 --uplink-accuracy 2"
    )
    code, _, err = run("train", "digits", *flags.split())
    assert (code, err) == (1, "branchy: enough\n")
    assert asked == [
        TrainOptions(
            dataset="digits",
            out=Path("o"),
            name="n",
            arch="a.py:f",
            tiers=("x", "y", "z"),
            height=20,
            width=30,
            batch_size=4,
            epochs=5,
            learning_rate=0.1,
            seed=6,
            validation_split=0.3,
            exit_weights=(1.0, 2.0, 3.0),
            recipe=Recipe(
                augment=("flip", "erase"),
                schedule="step",
                warmup_epochs=1.5,
                class_weights="balanced",
                distill=(0.5, 3.0),
                mixed_precision="off",
                stop_on="loss",
                patience=7,
            ),
            resume=True,
            log_dir=Path("l"),
            policy="margin",
            thresholds={"x": 0.5, "y": 0.6},
            uplink=("sample", "bottleneck"),
            uplink_dtype="uint8",
            uplink_bytes=90,
            uplink_accuracy=2.0,
            overwrite=True,
            command=f"branchy train digits {flags}",
        )
    ]


def test_the_flags_of_a_plain_keras_model_arrive(run: Run, asked: list[TrainOptions]) -> None:
    flags = "--arch m.keras --cut a,b --head input,f.py:head --preprocessing none --freeze-backbone --label-mode binary"
    run("train", "digits", *flags.split())
    wanted = Wanted("a,b", ("input", "f.py:head"), "none", "binary", freeze_backbone=True)
    assert asked == [TrainOptions("digits", arch="m.keras", wanted=wanted, command=f"branchy train digits {flags}")]


def test_flags_left_out_are_the_options_own_defaults(run: Run, asked: list[TrainOptions]) -> None:
    run("train", "digits")
    assert asked == [TrainOptions("digits", command="branchy train digits")]


def test_shares_are_numbers_with_commas_between(run: Run, asked: list[TrainOptions]) -> None:
    run("train", "digits", "--target-share", "60,25,15")
    assert asked[0].target_share == (60.0, 25.0, 15.0)
    code, _, err = run("train", "digits", "--target-share", "60;25;15")
    assert code == 2
    assert "expected numbers with commas between, got '60;25;15'" in err


def test_class_weights_are_a_name_or_numbers(run: Run, asked: list[TrainOptions]) -> None:
    run("train", "digits", "--class-weights", "1,0.5,2")
    run("train", "digits", "--class-weights", "none")
    assert [options.recipe.class_weights for options in asked] == [(1.0, 0.5, 2.0), "none"]
    code, _, err = run("train", "digits", "--class-weights", "balance")
    assert code == 2
    assert "--class-weights: expected none, balanced or numbers with commas between, got 'balance'" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "no data set 'nowhere'"),
        (["digits", "--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["digits", "--threshold", "2"], "must be in 0..1, got 2"),
        (["digits", "--arch", "nothing.py:f"], "no file nothing.py"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    run: Run, arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run("train", *arguments)
    last = err.splitlines()[-1]
    assert (code, out) == (2, "")
    assert last.startswith("branchy: ")
    assert says in last
    assert list(tmp_path.iterdir()) == []


def test_without_tensorflow_the_install_line_is_named(tmp_path: Path) -> None:
    code = "import sys; sys.modules['tensorflow'] = None; from branchy.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "digits"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "branchy: training needs an optional part; install it with: pip install 'branchy[train]'\n"
    assert list(tmp_path.iterdir()) == []
