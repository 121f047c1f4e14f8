from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from branchy.core.cascade import Array, TensorSpec
from branchy.datasets import Part
from branchy.errors import TrainingError, UsageError
from branchy.models.backend import keras
from branchy.models.batches import balanced
from branchy.models.checkpoint import Progress
from branchy.models.schedule import Schedule
from branchy.models.steps import Distillation
from branchy.models.stopping import Goal
from branchy.models.training import Fit, History, fit, make_deterministic

layers = keras.layers
SPEC = TensorSpec("sample", (6,))
GOAL = Goal("max_prob", [0.8, 0.8], None, [1, 3])


class _Rows:
    """Two classes, told apart by the first column but for noise."""

    def __init__(self, n: int = 400) -> None:
        rng = np.random.default_rng(0)
        self.labels = np.arange(n) % 2
        self.values = rng.normal(size=(n, 6)).astype(np.float32)
        self.values[:, 0] += 3 * self.labels

    def read(self, index: int) -> Array:
        return self.values[index]

    def part(self, first: int, end: int) -> Part:
        return Part(self, np.arange(first, end), self.labels[first:end])


ROWS = _Rows()
TRAIN, EARLY_STOP = ROWS.part(0, 100), ROWS.part(300, 340)


def _model(**dense: Any) -> Any:
    make_deterministic(0)
    sample = keras.Input((6,), name="sample")
    x = layers.Dense(8, activation="tanh", name="first", **dense)(sample)
    near = layers.Dense(2, name="near")(x)
    far = layers.Dense(2, name="far")(layers.Dense(8, activation="tanh", name="second")(x))
    return keras.Model(sample, {"near": near, "far": far})


def _kernel(model: Any, layer: str) -> Array:
    return np.array(model.get_layer(layer).kernel.value.numpy())


def _how(epochs: int = 3, learning_rate: float = 0.01, **changed: Any) -> Fit:
    given = {"exit_weights": {"near": 1.0, "far": 1.0}, "goal": GOAL, "batch_size": 32, "seed": 0, **changed}
    return Fit(schedule=Schedule("constant", learning_rate, epochs), **given)


def _fit(model: Any, how: Fit, train: Part = TRAIN, early_stop: Part = EARLY_STOP, **options: Any) -> History:
    return fit(model, SPEC, train, early_stop, how, **options)


def test_the_exits_learn_and_the_history_has_a_value_an_epoch_of_everything() -> None:
    history = _fit(_model(), _how(epochs=5, learning_rate=0.03))
    assert {len(values) for values in history.values()} == {5}
    own = {f"{part}{name}_{what}" for part in ("", "val_") for name in ("near", "far") for what in ("loss", "accuracy")}
    cascade = {f"val_cascade_{what}" for what in ("accuracy", "loss", "flops")}
    assert set(history) == own | cascade | {"loss", "val_loss", "learning_rate"}
    for name in ("near", "far"):
        assert history[f"val_{name}_accuracy"][-1] > 0.85
        assert history[f"val_{name}_loss"][-1] < history[f"val_{name}_loss"][0]
    assert history["loss"] == pytest.approx(np.add(history["near_loss"], history["far_loss"]), rel=1e-5)


def test_the_loss_is_weighed_and_penalties_on_weights_count() -> None:
    weighed = _fit(_model(), _how(epochs=1, exit_weights={"near": 0.25, "far": 2.0}))
    wanted = 0.25 * weighed["near_loss"][0] + 2 * weighed["far_loss"][0]
    assert weighed["loss"] == pytest.approx([wanted], rel=1e-5)
    punished = _fit(_model(kernel_regularizer=keras.regularizers.L2(1.0)), _how(epochs=1))
    assert punished["loss"][0] > punished["near_loss"][0] + punished["far_loss"][0] + 0.1


def test_an_exit_of_no_weight_is_not_trained() -> None:
    model = _model()
    before = {name: _kernel(model, name) for name in ("first", "near")}
    _fit(model, _how(exit_weights={"near": 0.0, "far": 1.0}))
    assert np.array_equal(_kernel(model, "near"), before["near"])
    assert not np.array_equal(_kernel(model, "first"), before["first"])


def test_what_is_frozen_stays_as_it_was() -> None:
    model = _model()
    model.get_layer("first").trainable = False
    kernel = _kernel(model, "first")
    _fit(model, _how(epochs=1))
    assert np.array_equal(_kernel(model, "first"), kernel)


def test_the_weights_are_those_of_the_best_epoch_and_training_ends_when_nothing_gets_better() -> None:
    # A rate far too high: nothing gets better for long.
    model = _model()
    history = _fit(model, _how(epochs=60, learning_rate=3.0, patience=3, stop_on="loss"))
    best = int(np.argmin(history["val_loss"]))
    assert len(history["loss"]) < 60
    worse = len(history["loss"]) - 1 - max(best, int(np.argmax(history["val_cascade_accuracy"])))
    assert worse <= 3
    again = _fit(model, _how(epochs=1, learning_rate=1e-30))
    assert again["val_loss"][0] == pytest.approx(history["val_loss"][best], rel=1e-6)


def test_balanced_classes_say_as_much_however_rare() -> None:
    rare = TRAIN.take(np.r_[np.arange(0, 100, 2), 1, 3])  # 50 samples of class 0, two of class 1
    right = {}
    for weights in (None, balanced(rare.labels, 2)):
        model = _model()
        _fit(model, _how(epochs=4, class_weights=weights), train=rare)
        answers = np.asarray(model(ROWS.values[300:])["far"]).argmax(axis=1)
        right[weights is not None] = (answers == 1)[ROWS.labels[300:] == 1].mean()
    assert right[True] > right[False] + 0.1


def test_an_early_exit_taught_by_the_last_alone_learns_what_the_last_says_not_the_labels() -> None:
    """All but the early exit's head is as it was drawn, so that the last says what it likes."""
    model = _model()
    for layer in model.layers:
        layer.trainable = layer.name == "near"
    how = _how(
        epochs=40, learning_rate=0.1, distillation=Distillation(1.0, 2.0), exit_weights={"near": 1.0, "far": 0.0}
    )
    said: dict[str, Any] = {}

    def listen(history: History, progress: Callable[[], Progress]) -> None:
        said.update({name: np.asarray(logits).argmax(axis=1) for name, logits in model(ROWS.values).items()})

    _fit(model, how, after_epoch=listen)
    assert (said["near"] == said["far"]).mean() > 0.85 > (said["near"] == ROWS.labels).mean() + 0.1


def test_the_teacher_does_not_learn_from_its_pupils() -> None:
    model = _model()
    kernel = _kernel(model, "far")
    _fit(model, _how(distillation=Distillation(1.0), exit_weights={"near": 1.0, "far": 0.0}))
    assert np.array_equal(_kernel(model, "far"), kernel)


def test_augmentation_is_given_the_samples_indices_and_the_epoch() -> None:
    seen: dict[int, list[int]] = {}

    def augment(samples: Array, indices: Any, epoch: int) -> Array:
        assert np.array_equal(samples, ROWS.values[indices])
        seen.setdefault(epoch, []).extend(indices.tolist())
        return np.zeros_like(samples)

    history = _fit(_model(), _how(epochs=2, augment=augment))
    assert {epoch: sorted(indices) for epoch, indices in seen.items()} == {e: list(range(100)) for e in (0, 1)}
    assert history["near_loss"][0] == pytest.approx(np.log(2), abs=0.05)  # nothing to see in zeros


def test_mixed_precision_trains_and_leaves_a_float32_model() -> None:
    model, plain = _model(), _model()
    mixed, alone = (_fit(m, _how(epochs=5, mixed_precision=m is model)) for m in (model, plain))
    assert mixed["val_near_loss"] != alone["val_near_loss"]
    assert mixed["val_near_loss"] == pytest.approx(alone["val_near_loss"], rel=0.05)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


# --- what goes wrong, and going on -----------------------------------------------------------------------------------


def _failing(from_sample: int) -> Part:
    class Rows(_Rows):
        def read(self, index: int) -> Array:
            return super().read(index) * (np.nan if index >= from_sample else 1)

    return Rows().part(0, 100)


def test_a_loss_that_is_no_number_names_the_epoch_and_leaves_the_checkpoint_of_the_one_before() -> None:
    kept: list[Progress] = []

    def spoil(samples: Array, indices: Any, epoch: int) -> Array:
        return samples * (np.nan if epoch == 2 else 1)

    with pytest.raises(TrainingError, match="the loss became nan in epoch 3 of 9"):
        _fit(_model(), _how(epochs=9, augment=spoil), after_epoch=lambda h, progress: kept.append(progress()))
    assert [len(progress.values["history"]["loss"]) for progress in kept] == [1, 2]
    assert all(np.isfinite(tensor).all() for tensor in kept[-1].tensors.values())


def test_outputs_that_are_no_numbers_on_the_early_stopping_part_are_found_too() -> None:
    with pytest.raises(TrainingError, match="the loss became nan in epoch 1 of 3"):
        _fit(_model(), _how(), early_stop=_failing(from_sample=90))


def test_a_checkpoint_of_a_model_of_other_variables_is_wrong_use() -> None:
    kept: list[Progress] = []
    _fit(_model(), _how(epochs=1), after_epoch=lambda history, progress: kept.append(progress()))
    other = _model(use_bias=False)
    before = _kernel(other, "first")
    with pytest.raises(UsageError, match="the checkpoint is of another model, with other variables"):
        _fit(other, _how(epochs=2), resume=kept[0])
    assert np.array_equal(_kernel(other, "first"), before)


def test_memory_is_flat_over_the_epochs() -> None:
    process, rss = psutil.Process(), []

    def look(history: History, progress: Callable[[], Progress]) -> None:
        progress()
        rss.append(process.memory_info().rss)

    _fit(_model(), _how(epochs=100, patience=100), train=TRAIN.take(np.arange(10)), after_epoch=look)
    assert len(rss) == 100
    assert rss[-1] - rss[10] < 8 * 2**20


# --- several devices -------------------------------------------------------------------------------------------------

SPREAD = """
import json, sys
import numpy as np
sys.path[:0] = sys.argv[1:]
from branchy.models.backend import tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import test_training as t
from branchy.models import training
found = {}
for name, devices in (("one", []), ("two", ["CPU:0", "CPU:1"])):
    training.devices = lambda: devices
    model = t._model()
    history = t._fit(model, t._how(epochs=1, batch_size=20))
    found[name] = [float(v) for w in model.get_weights() for v in np.ravel(w)], history
print(json.dumps(found))
"""


@pytest.mark.slow
def test_several_devices_share_each_batch_and_come_to_the_weights_of_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SPREAD, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    (one, one_history), (two, two_history) = found["one"], found["two"]
    assert two == pytest.approx(one, abs=1e-4)
    for name, values in one_history.items():
        assert two_history[name] == pytest.approx(values, rel=1e-3), name
