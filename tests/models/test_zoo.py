from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from branchy.core.cascade import InputSpec, TensorSpec, Uplink
from branchy.datasets import Part
from branchy.engines.litert import LiteRTEngine
from branchy.errors import ArchitectureError
from branchy.models.b_lenet import b_lenet
from branchy.models.backend import keras, tf
from branchy.models.branching import build
from branchy.models.export import write_litert
from branchy.models.schedule import Schedule
from branchy.models.splitting import Network, split
from branchy.models.stopping import Goal
from branchy.models.training import Fit, fit
from branchy.models.zoo import ZOO, Backbone, find

Shape = tuple[int, int, int]

USUAL: dict[str, Shape] = {
    "b-lenet": (28, 28, 1),
    "b-lenet-paper": (28, 28, 1),
    "b-alexnet": (32, 32, 3),
    "b-resnet": (32, 32, 3),
    "b-resnet:26": (32, 32, 3),
    "branchy-vgg16": (180, 180, 3),
    "branchy-mobilenet": (180, 180, 3),
}
LEAST = {"b-lenet": 8, "b-lenet-paper": 8, "b-alexnet": 16, "b-resnet": 8, "branchy-vgg16": 32, "branchy-mobilenet": 32}
LEARNS: dict[str, Shape] = {
    "b-lenet-paper": (8, 8, 1),
    "b-alexnet": (16, 16, 3),
    "b-resnet:14": (8, 8, 3),
    "branchy-vgg16": (64, 64, 3),
    "branchy-mobilenet": (32, 32, 3),
}
"""The smallest samples on which all of an architecture does something; VGG16 on 64 pixels, where a step is quick."""


def test_every_architecture_of_the_zoo_is_tested() -> None:
    assert set(ZOO) <= set(USUAL)
    assert set(LEAST) == set(ZOO)


@pytest.mark.parametrize(
    ("name", "shape"), [*USUAL.items(), *((name, (least, least + 1, 3)) for name, least in LEAST.items())]
)
def test_an_architecture_is_built_for_its_usual_samples_and_for_the_smallest(name: str, shape: Shape) -> None:
    names = [stage.name for stage in build(find(name).build, shape, 7, None).stages]
    assert names in (["edge", "fog", "cloud"], ["edge", "cloud"])


@pytest.mark.parametrize(("name", "least"), LEAST.items())
def test_samples_that_are_too_small_are_refused_in_one_line(name: str, least: int) -> None:
    with pytest.raises(ArchitectureError) as caught:
        build(find(name).build, (least, least - 1, 3), 10, None)
    expected = f"{name} needs samples of at least {least} x {least}, got ({least}, {least - 1}, 3)"
    assert str(caught.value) == expected


class _Pixels:
    """Samples of nothing in particular."""

    def __init__(self, shape: Shape) -> None:
        self.labels = np.array([0, 1])
        self.values = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)

    def read(self, index: int) -> Any:
        return self.values[index]

    def raw(self, index: int) -> bytes:
        raise NotImplementedError

    def part(self) -> Part:
        return Part(self, np.arange(2), self.labels)


@pytest.mark.parametrize("name", LEARNS)
def test_a_step_of_training_moves_all_weights_and_in_litert_the_stages_together_are_the_whole(
    name: str, tmp_path: Path
) -> None:
    data = _Pixels(LEARNS[name])
    spec = InputSpec(TensorSpec("sample", LEARNS[name], "uint8"), 0.0, 255.0)
    built = build(find(name).build, LEARNS[name], 3, None)
    network = split(built, spec, [Uplink("activation", "float32")] * (len(built.stages) - 1))
    before = [np.array(weight) for weight in network.trained.trainable_weights]
    _one_step(network, data)
    moved = [not np.array_equal(w, b) for w, b in zip(network.trained.trainable_weights, before, strict=True)]
    assert all(moved)
    expected, x = network.trained(data.values), data.values
    for stage in network.stages:
        path = tmp_path / f"{stage.spec.name}.tflite"
        write_litert(stage.model, stage.spec.input, path)
        out = LiteRTEngine(stage.spec, path).run(x)
        assert not stage.spec.custom_objects
        assert np.allclose(out["logits"], expected[stage.spec.name], atol=1e-4, rtol=1e-4)
        x = out.get("activation", x)


def _one_step(network: Network, data: _Pixels) -> None:
    exits = {stage.spec.name: 1.0 for stage in network.stages}
    goal = Goal("max_prob", [0.8] * len(exits), None, list(range(1, len(exits) + 1)))
    how = Fit(exits, goal, 2, Schedule("constant", 0.001, 1), 0)
    tf.config.run_functions_eagerly(True)  # tracing takes longer than one step does
    try:
        fit(network.trained, network.full.spec.input, data.part(), data.part(), how)
    finally:
        tf.config.run_functions_eagerly(False)


def test_a_saved_stage_with_local_response_normalisation_loads_without_code(tmp_path: Path) -> None:
    spec = InputSpec(TensorSpec("sample", (16, 16, 3), "uint8"), 0.0, 255.0)
    stage = split(build(find("b-alexnet").build, (16, 16, 3), 3, None), spec, [Uplink()] * 2).stages[0]
    stage.model.save(tmp_path / "edge.keras")
    loaded = keras.saving.load_model(tmp_path / "edge.keras", compile=False, safe_mode=True)
    x = _Pixels((16, 16, 3)).values
    assert np.allclose(loaded(x)["activation"], stage.model(x)["activation"], atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (180, 180, 3), (9, 17, 3)])
def test_b_lenet_takes_samples_of_any_size_from_8_on(shape: tuple[int, int, int]) -> None:
    built = build(find("b-lenet").build, shape, 10, None)
    assert [stage.name for stage in built.stages] == ["edge", "fog", "cloud"]


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (180, 180, 3)])
def test_b_lenet_sends_up_fewer_float16_bytes_than_an_image_has(shape: tuple[int, int, int]) -> None:
    raw = shape[0] * shape[1] * shape[2]
    for stage in build(b_lenet, shape, 10, None).stages[:-1]:
        _, height, width, channels = stage.cut.shape
        assert 2 * height * width * channels < raw


def test_a_function_in_a_file_of_ones_own_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def small(input_shape, classes):\n    return input_shape, classes\n")
    found = find(f"{tmp_path}/mine.py:small")
    assert found.build((1, 2, 3), 4) == ((1, 2, 3), 4)
    assert (found.preprocessing, found.random) == (None, False)


def _small(path: Path, *more: Any) -> Any:
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), *more, keras.layers.Dense(3)])
    model.save(path)
    return model


def test_a_saved_model_is_loaded_with_its_weights(tmp_path: Path) -> None:
    model = _small(tmp_path / "m.keras")
    found = find(f"{tmp_path}/m.keras")
    x = np.ones((2, 4, 4, 1), np.float32)
    made = found.build((4, 4, 1), 3)
    assert np.array_equal(made(x), model(x))
    assert found.is_pretrained(made)


def test_a_saved_model_with_code_in_it_is_not_run_and_the_way_out_is_named(tmp_path: Path) -> None:
    class Own(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x

    for layer, says in ((keras.layers.Lambda(lambda x: x), "a Lambda layer, which is code"), (Own(), "does not know")):
        _small(tmp_path / "m.keras", layer)
        with pytest.raises(ArchitectureError) as caught:
            find(f"{tmp_path}/m.keras").build((4, 4, 1), 3)
        assert says in str(caught.value)
        assert "give --arch path/to/file.py:function" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_model_of_keras_applications_has_random_weights_and_its_own_preprocessing() -> None:
    found = find("keras:MobileNetV2")
    made = found.build((32, 32, 3), 5)
    assert made.output_shape == (None, 5)
    assert (found.preprocessing, found.random, found.is_pretrained(made)) == ("keras:MobileNetV2", True, False)


def test_weights_of_keras_applications_fit_with_their_top_or_without(tmp_path: Path) -> None:
    path, shape = tmp_path / "w.weights.h5", (32, 32, 3)
    x = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    for include_top in (True, False):
        theirs = keras.applications.VGG16(include_top, None, input_shape=shape, classes=5)
        theirs.save_weights(path)
        found = find(f"keras:VGG16:{path}")
        made = found.build(shape, 5)
        assert isinstance(made, Backbone) is not include_top
        assert found.is_pretrained(made) is include_top
        assert np.array_equal((made.model if isinstance(made, Backbone) else made)(x), theirs(x))


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.weights.h5"
    _small(tmp_path / "m.keras").save_weights(other)
    (tmp_path / "no.weights.h5").write_bytes(b"no weights")
    for path in (other, tmp_path / "no.weights.h5"):
        with pytest.raises(
            ArchitectureError, match="fits neither the model for 5 classes nor the model without its top"
        ):
            find(f"keras:VGG16:{path}").build((32, 32, 3), 5)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "vgg",
            f"no architecture 'vgg': expected one of {', '.join(ZOO)}, b-resnet:DEPTH, or path/to/file.py:function",
        ),
        ("b-resnet:18", "expected 6n + 2 layers from 14 to 1202, such as b-resnet:110; got '18'"),
        ("b-resnet:8", "expected 6n + 2 layers"),
        ("b-resnet:1208", "expected 6n + 2 layers"),
        ("b-resnet:", "got ''"),
        ("b-resnet:\u0662\u0660", "expected 6n + 2 layers"),
        ("mine.py", "no architecture"),
        ("mine.txt:small", "no architecture"),
        ("none.py:small", "no file none.py"),
        ("keras:vgg", "keras.applications has no model 'vgg'"),
        ("keras:VGG16:none.h5", "no file none.h5; expected weights of keras.applications.VGG16"),
    ],
)
def test_what_cannot_be_found_is_named(name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArchitectureError) as caught:
        find(name)
    assert says in str(caught.value)


def test_a_saved_model_that_is_not_there_is_named() -> None:
    with pytest.raises(ArchitectureError, match=r"no file nowhere\.keras"):
        find("nowhere.keras").build((4, 4, 1), 3)
