from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from branchy.errors import ArchitectureError
from branchy.models.b_lenet import b_lenet
from branchy.models.backend import keras
from branchy.models.branching import build
from branchy.models.zoo import Backbone, find


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


def test_b_lenet_refuses_samples_that_are_too_small() -> None:
    with pytest.raises(ArchitectureError, match="at least 8 x 8"):
        build(b_lenet, (7, 8, 1), 10, None)


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
        ("vgg", "no architecture 'vgg': expected one of b-lenet, or path/to/file.py:function"),
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
