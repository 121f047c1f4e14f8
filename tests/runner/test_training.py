from __future__ import annotations

import csv
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from full_disk import files_of_at_most
from image_folder import write_image_folder

from branchy.core.cascade import FormatName
from branchy.datasets import load
from branchy.engines import open_engine
from branchy.errors import ArchitectureError, BundleError, TrainingError, UsageError
from branchy.models.wanted import Wanted
from branchy.runner import training
from branchy.runner.packing import Packer
from branchy.runner.recipe import Recipe
from branchy.runner.training import TrainOptions, train
from branchy.runner.training_summary import Summary, summary_lines
from branchy.store.bundle import Bundle

SUPPORT = Path(__file__).parent.parent / "support"
OWN_ARCH, ONE_EXIT = (f"{SUPPORT}/{name}.py:build" for name in ("own_arch", "one_exit_arch"))


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An `.npz` of 8 x 8 grey samples of 3 classes that are easy to tell apart."""
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    x = rng.integers(0, 60, (300, 8, 8), dtype=np.uint8)
    for i, label in enumerate(y):
        x[i, 2 * label : 2 * label + 3] += 180
    path = tmp_path_factory.mktemp("data") / "blobs.npz"
    np.savez(path, x_train=x[:200], y_train=y[:200], x_test=x[200:], y_test=y[200:])
    return str(path)


def _options(blobs: str, out: Path, **changed: Any) -> TrainOptions:
    return replace(TrainOptions(blobs, out=out, epochs=1), **changed)


# --- what a bundle holds ---------------------------------------------------------------------------------------------


def test_a_trained_bundle_has_every_stage_in_both_formats(digits_bundle: Bundle) -> None:
    bundle = Bundle.load(digits_bundle.path)
    assert [stage.name for stage in bundle.spec.stages] == ["edge", "fog", "cloud"]
    for stage in (*bundle.spec.stages, bundle.spec.full):
        name = "model" if stage.name == "full" else stage.name
        assert {fmt: file.path for fmt, file in stage.files.items()} == {
            "keras": f"{name}.keras",
            "litert": f"{name}.tflite",
        }


def test_a_few_epochs_learn_the_digits_at_every_exit(digits_bundle: Bundle) -> None:
    for stage in digits_bundle.spec.stages:
        settings = stage.exit_settings("litert")
        assert settings is not None
        assert settings.accuracy is not None
        assert settings.accuracy > 0.7


def test_the_declared_range_and_labels_are_the_data_set_s(digits_bundle: Bundle) -> None:
    data = load("digits")
    assert digits_bundle.spec.input == data.input
    assert digits_bundle.spec.labels == data.labels
    assert digits_bundle.spec.name == "digits"


def test_the_parts_are_disjoint_and_the_test_part_is_the_data_set_s_own(digits_bundle: Bundle) -> None:
    data = load("digits")
    parts = training._divide(data, TrainOptions("digits"))
    assert list(parts) == ["train", "early-stop", "temperature", "tune", "certify", "test"]
    together = np.concatenate([part.indices for part in parts.values()])
    assert sorted(together.tolist()) == list(range(1797))
    splits = digits_bundle.manifest.splits
    assert {name: split.samples for name, split in splits.items()} == {n: len(part) for n, part in parts.items()}
    assert len({split.sha256 for split in splits.values()}) == 6
    held_out = sum(len(parts[name]) for name in ("early-stop", "temperature", "tune", "certify"))
    assert held_out == pytest.approx(0.2 * len(data.pool), abs=10)


@pytest.mark.parametrize("fmt", ["litert", "keras"])
def test_golden_inputs_give_their_logits_in_every_format(digits_bundle: Bundle, fmt: FormatName) -> None:
    for stage in (*digits_bundle.spec.stages, digits_bundle.spec.full):
        inputs, logits = digits_bundle.golden(stage.name)
        engine = open_engine(stage, digits_bundle.file(stage, fmt), fmt)
        assert np.allclose(engine.run(inputs)["logits"], logits, rtol=1e-4, atol=1e-4)
        engine.close()


def test_the_history_has_every_exit_and_the_plots_are_there(digits_bundle: Bundle) -> None:
    with (digits_bundle.path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    wanted = {f"{v}{e}_{m}" for v in ("", "val_") for e in ("edge", "fog", "cloud") for m in ("accuracy", "loss")}
    assert wanted | {"loss", "val_loss"} <= set(rows[0])
    assert {"accuracy.png", "loss.png", "history.csv"} <= set(digits_bundle.manifest.files)


# --- what can be asked for -------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_and_another_does_not(blobs: str, tmp_path: Path) -> None:
    data, weights = load(blobs), []
    for seed in (7, 7, 8):
        options = _options(blobs, tmp_path / "b", seed=seed, epochs=2)
        network, parts = training._build(data, options), training._divide(data, options)
        wanted = training._thresholds(options, network, len(data.labels))
        training.fit_network(network, data, parts, options, wanted, tmp_path / "b")
        weights.append(network.trained.get_weights())
    first, again, other = weights
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.fixture(scope="module")
def own(blobs: str, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """The user's own architecture, trained with flags of every kind."""
    return train(
        _options(
            blobs,
            tmp_path_factory.mktemp("own") / "b",
            arch=OWN_ARCH,
            tiers=("a", "b", "c"),
            exit_weights=(0.3, 1),
            policy="entropy",
            thresholds={"a": 0.4},
            uplink_dtype="float32",
            name="my.cascade",
        )
    )


def test_an_architecture_of_ones_own_is_trained_and_its_stages_renamed(own: Summary) -> None:
    has_exit = {stage.spec.name: stage.exit is not None for stage in own.stages}
    assert has_exit == {"a": True, "b": False, "c": True, "full": True}
    assert own.bundle.spec.name == "my.cascade"


def test_thresholds_and_policy_are_kept_in_every_format_and_the_last_exit_always_answers(own: Summary) -> None:
    for fmt in ("litert", "keras"):
        exits = [stage.exit_settings(fmt) for stage in own.bundle.spec.stages]
        assert [(e.policy, e.threshold) for e in exits if e] == [
            ("entropy", 0.4),
            ("entropy", pytest.approx(np.log(3))),
        ]


def test_the_summary_tells_people_each_stage_and_where_the_bundle_is(own: Summary) -> None:
    lines = summary_lines(own)
    assert [line.split()[0] for line in lines[:5]] == ["stage", "a", "b", "c", "full"]
    assert str(own.bundle.path) in lines[-1]
    assert any(line.startswith("device  sample 8 x 8 x 1") for line in lines)
    assert f"ECE before and after the temperature T, on {own.parts['tune']} samples" in lines[-3]
    assert lines[1].count("%") == 5  # accuracy, ECE before, after and by chance, share
    assert lines[2].count("%") == 0  # a stage without an exit
    assert "a loses too much" in summary_lines(replace(own, over_budget=("a loses too much",)))


def test_a_cut_that_sends_more_than_the_sample_is_warned_of(
    blobs: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Packer, "fill", lambda self, folder: pytest.fail("warned too late"))
    with caplog.at_level(logging.WARNING, "branchy"), pytest.raises(pytest.fail.Exception):
        train(_options(blobs, tmp_path / "b", uplink_dtype="float32"))
    # 4 x 4 x 8 and 2 x 2 x 32 floats against 8 x 8 bytes.
    edge, fog = (line for line in caplog.messages if "bytes a request, more than the raw sample's" in line)
    assert edge.startswith("edge sends up 5")
    assert edge.endswith("; --uplink sample,activation would send the sample")
    assert fog.endswith("; --uplink sample,sample would send the sample")


def test_one_exit_is_enough_and_the_same_training_gives_the_same_digest(blobs: str, tmp_path: Path) -> None:
    """Whenever it was done, and however long its stages took."""
    options = _options(blobs, tmp_path / "a", arch=ONE_EXIT, target_share=(100,))
    first, again = (train(replace(options, out=tmp_path / name)).bundle for name in "ab")
    assert [stage.name for stage in first.spec.stages] == ["only"]
    assert (first.path / "accuracy.png").is_file()
    assert first.digest == again.digest
    assert first.digest != train(replace(options, out=tmp_path / "c", seed=1)).bundle.digest


def test_layers_of_ones_own_make_a_bundle_that_litert_runs(blobs: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import keras\n"
        "from branchy.models.branching import BranchyModel, Stage\n"
        "class Twice(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return 2 * x\n"
        "def build(input_shape, classes):\n"
        "    sample = keras.Input(input_shape)\n"
        "    cut = Twice()(sample)\n"
        "    near, far = (keras.layers.Dense(classes)(keras.layers.Flatten()(x)) for x in (cut, keras.ops.relu(cut)))\n"
        "    stages = [Stage('edge', cut, near), Stage('cloud', None, far)]\n"
        "    return BranchyModel(keras.Model(sample, [near, far]), stages)\n"
    )
    bundle = train(_options(blobs, tmp_path / "b", arch=f"{tmp_path}/own.py:build")).bundle
    assert [stage.custom_objects for stage in bundle.spec.stages] == [True, False]
    inputs, logits = bundle.golden("edge")
    engine = open_engine(bundle.spec.stages[0], bundle.file(bundle.spec.stages[0], "litert"), "litert")
    assert np.allclose(engine.run(inputs)["logits"], logits, atol=1e-4)


def test_a_folder_with_a_damaged_image_is_trained_without_it(tmp_path: Path) -> None:
    root = write_image_folder(tmp_path / "pets", ["cat", "dog", "owl"], each=30)
    (root / "owl" / "004.png").write_bytes(b"broken")
    summary = train(TrainOptions(str(root), out=tmp_path / "b", height=12, width=10, epochs=1))
    assert sum(summary.parts.values()) == 89
    assert [line for line in summary.skipped if "004.png" in line]
    spec = summary.bundle.spec
    assert (spec.labels, spec.input.tensor.shape) == (("cat", "dog", "owl"), (12, 10, 3))


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"batch_size": 0}, "--batch-size must be at least 1, got 0"),
        ({"epochs": 0}, "--epochs must be at least 1"),
        ({"learning_rate": 0.0}, "--learning-rate must be above 0"),
        ({"learning_rate": float("nan")}, "--learning-rate must be above 0"),
        ({"seed": -1}, "--seed must be in"),
        ({"validation_split": 1.0}, "--validation-split must be between 0 and 1"),
        ({"height": 8}, "--height and --width must be given together"),
        ({"thresholds": 0.8, "target_share": (60, 25, 15)}, "exclude each other"),
        ({"target_share": (60, 25)}, "must sum to 100 per cent, got 60,25, which sums to 85"),
        ({"target_share": (50, 50)}, "--target-share needs a number for each exit (edge, fog, cloud), got 50,50"),
        ({"target_share": (120, -20, 0)}, "at or above 0"),
        ({"exit_weights": (1, 1)}, "--exit-weights needs a number for each exit (edge, fog, cloud), got 1,1"),
        ({"exit_weights": (0, 0, 0)}, "not all 0"),
        ({"exit_weights": (1, 1, float("nan"))}, "at or above 0"),
        ({"thresholds": 1.5}, "threshold for policy max_prob must be in 0..1, got 1.5"),
        ({"thresholds": {"fog": -0.1}}, "must be in 0..1, got -0.1"),
        ({"thresholds": {"cloud": 0.5}}, "'cloud' decides nothing"),
        ({"thresholds": {"mist": 0.5}}, "'mist' decides nothing; expected edge, fog"),
        ({"policy": "entropy"}, "--policy entropy needs --threshold"),
        ({"policy": "entropy", "thresholds": {"edge": 0.5}}, "name fog too"),
        ({"policy": "entropy", "thresholds": 1.2}, "in 0..1.099 (ln of the number of classes), got 1.2"),
        ({"tiers": ("edge", "cloud")}, "a name for each of the 3 stages"),
        ({"tiers": ("edge", "full", "cloud")}, "got 'full'"),
        ({"arch": "resnet"}, "no architecture 'resnet'"),
        ({"arch": "nowhere.py:build"}, "no file nowhere.py"),
        ({"dataset": "nowhere"}, "no data set 'nowhere'"),
        ({"name": "a b"}, "--name must be"),
        ({"height": 4, "width": 4}, "at least 8 x 8"),
        ({"formats": ("litert-int8",)}, "--formats: expected litert or keras among them"),
        ({"recipe": Recipe(patience=0)}, "--patience must be at least 1, got 0"),
        ({"recipe": Recipe(warmup_epochs=1.5)}, "--warmup-epochs must be in 0..1 (--epochs)"),
        ({"recipe": Recipe(class_weights=(1.0, 2.0))}, "for each of the 3 classes (0, 1, 2), got 1,2"),
        ({"recipe": Recipe(mixed_precision="on")}, "--mixed-precision on needs a GPU"),
    ],
)
def test_wrong_use_is_found_before_the_training(
    blobs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], says: str
) -> None:
    monkeypatch.setattr(training, "fit_network", lambda *args: pytest.fail("trained before the check"))
    with pytest.raises(UsageError) as caught:
        train(_options(blobs, tmp_path / "b", **changed))
    assert caught.value.exit_code == 2
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_one_hot_labels_are_trained_on_as_their_classes_where_the_label_mode_says_so(
    blobs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {key: np.eye(3)[array] if key.startswith("y_") else array for key, array in np.load(blobs).items()}
    np.savez(tmp_path / "hot.npz", **arrays)
    trained_on: list[np.ndarray] = []

    def keep(network: Any, data: Any, parts: Any, *rest: Any) -> None:
        trained_on.append(parts["train"].labels)
        raise InterruptedError

    monkeypatch.setattr(training, "fit_network", keep)
    for dataset in (blobs, str(tmp_path / "hot.npz")):
        with pytest.raises(InterruptedError):
            train(_options(dataset, tmp_path / "b", wanted=Wanted(label_mode="categorical")))
    of_indices, of_rows = trained_on
    assert np.array_equal(of_indices, of_rows)
    with pytest.raises(UsageError, match="give --label-mode categorical"):
        train(_options(str(tmp_path / "hot.npz"), tmp_path / "b"))


def test_a_place_that_is_taken_is_found_before_the_data_is_read(
    blobs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "load", lambda *args, **kwargs: pytest.fail("read before the check"))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        train(_options(blobs, tmp_path))
    with pytest.raises(UsageError, match="cannot write"):
        train(_options(blobs, tmp_path / "notes.txt" / "bundle"))


def test_too_few_samples_are_wrong_use(tmp_path: Path) -> None:
    root = write_image_folder(tmp_path / "pets", ["a", "b"], each=3)
    with pytest.raises(UsageError, match="too few samples"):
        train(TrainOptions(str(root), out=tmp_path / "b", height=8, width=8))


def test_a_class_without_training_samples_is_wrong_use(tmp_path: Path) -> None:
    x, y = np.zeros((60, 8, 8), np.uint8), np.arange(60) % 2 * 2
    np.savez(tmp_path / "gap.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(UsageError, match="class '1' has no sample to train on"):
        train(TrainOptions(str(tmp_path / "gap.npz"), out=tmp_path / "b"))


def test_a_class_that_a_held_out_part_lacks_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "fit_network", lambda *args: pytest.fail("enough"))
    x, y = np.zeros((200, 8, 8), np.uint8), np.arange(200) % 2
    y[:5] = 2
    np.savez(tmp_path / "rare.npz", x_train=x, y_train=y, x_test=x, y_test=y, labels=["a", "b", "rare"])
    with caplog.at_level(logging.WARNING, "branchy"), pytest.raises(pytest.fail.Exception):
        train(TrainOptions(str(tmp_path / "rare.npz"), out=tmp_path / "b"))
    assert "no sample of rare in the part early-stop: it says nothing of it; add samples" in caplog.text


def test_an_architecture_that_returns_something_else_is_wrong_use(blobs: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def build(input_shape, classes):\n    return 'model'\n")
    with pytest.raises(ArchitectureError, match="must return a BranchyModel or a Keras model, got str"):
        train(_options(blobs, tmp_path / "b", arch=f"{tmp_path}/own.py:build"))


# --- what goes wrong under way ---------------------------------------------------------------------------------------


def test_a_loss_that_diverges_is_a_failure_that_leaves_nothing(blobs: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the loss became (nan|inf) in epoch 1 of 3; .*--learning-rate") as caught:
        train(_options(blobs, tmp_path / "b", learning_rate=1e30, epochs=3))
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_an_image_that_goes_away_under_way_is_a_failure_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from branchy.models import training as models_training

    root = write_image_folder(tmp_path / "pets", ["a", "b"], each=40)
    fit = models_training.fit

    def remove_and_fit(*args: Any, **options: Any) -> Any:
        for path in root.rglob("*.png"):
            path.unlink()
        return fit(*args, **options)

    monkeypatch.setattr(models_training, "fit", remove_and_fit)
    with pytest.raises(TrainingError, match=r"TensorFlow failed while training: .*\.png: not a readable") as caught:
        train(TrainOptions(str(root), out=tmp_path / "b", height=8, width=8))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["pets"]


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("branchy.models.export.write_litert", KeyboardInterrupt()),
        ("branchy.runner.packing.calibrate", TrainingError("as if")),
    ],
)
def test_whatever_ends_it_nothing_half_written_is_left_and_resume_saves_the_training(
    where: str, what: BaseException, blobs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise what

    options = _options(blobs, tmp_path / "b", arch=ONE_EXIT)
    with monkeypatch.context() as patch:
        patch.setattr(where, fail)
        with pytest.raises(type(what)):
            train(options)
    assert [path.name for path in tmp_path.iterdir()] == ["b.checkpoint"]
    with monkeypatch.context() as patch:
        patch.setattr("branchy.models.steps.Steps.run", lambda *args: pytest.fail("trained again"))
        train(replace(options, resume=True))
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_search_for_bottlenecks_that_is_ended_and_resumed_comes_to_the_same_digest(
    blobs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from branchy.models import bottleneck_training

    monkeypatch.setattr(bottleneck_training, "STEPS", 2)
    (tmp_path / "tiny.py").write_text(TINY.replace("30", "2"))
    options = _options(blobs, tmp_path / "whole", arch=f"{tmp_path}/tiny.py:build", formats=("keras",))
    options = replace(options, uplink=("bottleneck",), uplink_bytes=73)
    whole = train(options).bundle
    fit = bottleneck_training.fit_bottleneck

    def end_after_the_first(*args: Any, **how: Any) -> None:
        fit(*args, **how)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bottleneck_training, "fit_bottleneck", end_after_the_first)
        with pytest.raises(KeyboardInterrupt):
            train(replace(options, out=tmp_path / "ended"))
    assert train(replace(options, out=tmp_path / "ended", resume=True)).bundle.digest == whole.digest


def test_a_disk_that_fills_up_under_the_export_is_one_line_and_keeps_the_checkpoint(
    blobs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from branchy.models import export

    write = export.write_litert

    def write_on_a_full_disk(*args: Any) -> None:
        with files_of_at_most(100):
            write(*args)

    monkeypatch.setattr(export, "write_litert", write_on_a_full_disk)
    with pytest.raises(BundleError, match=r"cannot write bundle .*File too large") as caught:
        train(_options(blobs, tmp_path / "b", arch=ONE_EXIT))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["b.checkpoint"]


def test_a_bundle_that_is_replaced_stays_whole_until_the_new_one_is(
    blobs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(_options(blobs, tmp_path / "b", arch=ONE_EXIT)).bundle
    with pytest.raises(UsageError, match="is there already"):
        train(_options(blobs, tmp_path / "b", arch=ONE_EXIT))
    with monkeypatch.context() as patch:
        patch.setattr("branchy.runner.packing.calibrate", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(_options(blobs, tmp_path / "b", arch=ONE_EXIT, overwrite=True))
    assert Bundle.load(tmp_path / "b").digest == first.digest
    second = train(_options(blobs, tmp_path / "b", arch=ONE_EXIT, overwrite=True, seed=1)).bundle
    assert Bundle.load(tmp_path / "b").digest == second.digest != first.digest


def test_a_litert_file_that_computes_something_else_is_found(
    blobs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from branchy.models import export
    from branchy.models.backend import keras

    write = export.write_litert

    def write_another(model: Any, took: Any, path: Path, *how: Any) -> None:
        other = keras.models.clone_model(model)
        other.set_weights([w * 1.01 for w in model.get_weights()])
        write(other, took, path, *how)

    monkeypatch.setattr(export, "write_litert", write_another)
    with pytest.raises(TrainingError, match="in format litert is off by"):
        train(_options(blobs, tmp_path / "b"))
    assert [path.name for path in tmp_path.iterdir()] == ["b.checkpoint"]


# --- memory ----------------------------------------------------------------------------------------------------------

MEASURE = """
import resource, sys
from pathlib import Path
from branchy.runner.packing import Packer
from branchy.runner.training import TrainOptions, train
from branchy.runner.training_summary import Summary, summary_lines
folder, arch, out = sys.argv[1:]
train(TrainOptions(folder, out=Path(out), arch=arch, epochs=1, batch_size=64))
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""

TINY = """
import keras
from branchy.models.branching import BranchyModel, Stage
def build(input_shape, classes):
    sample = keras.Input(input_shape)
    cut = keras.layers.AveragePooling2D(30)(sample)
    near, far = (keras.layers.Dense(classes)(keras.layers.Flatten()(x)) for x in (cut, keras.ops.tanh(cut)))
    return BranchyModel(keras.Model(sample, [near, far]), [Stage("edge", cut, near), Stage("cloud", None, far)])
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_peak_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """At 180 x 180 x 3, 4,000 samples are 389 MB: held in memory they would make the peak half as high again."""
    drawn = write_image_folder(tmp_path / "drawn", ["a", "b"], each=20)
    (tmp_path / "tiny.py").write_text(TINY)
    peaks = {}
    for count in (1000, 4000):
        root = tmp_path / str(count)
        for name in ("a", "b"):
            (root / name).mkdir(parents=True)
            for i in range(count // 2):
                os.link(drawn / name / f"{i % 20:03}.png", root / name / f"{i}.png")
        command = [sys.executable, "-c", MEASURE, root, f"{tmp_path}/tiny.py:build", tmp_path / f"bundle-{count}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[count] = int(done.stdout.split()[-1])
    assert peaks[4000] <= 1.1 * peaks[1000], peaks
