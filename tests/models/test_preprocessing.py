from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from branchy.core.cascade import InputSpec, TensorSpec
from branchy.errors import ArchitectureError
from branchy.models.backend import keras
from branchy.models.preprocessing import application_model, application_module, preprocessed, unit_scaled

SHAPE = (4, 4, 3)


def _spec(low: float = 0.0, high: float = 255.0) -> InputSpec:
    return InputSpec(TensorSpec("sample", SHAPE, "float32"), low, high)


def _run(name: str, spec: InputSpec, samples: np.ndarray) -> np.ndarray:
    sample = keras.Input(SHAPE)
    return np.asarray(keras.Model(sample, preprocessed(name, sample, spec))(samples))


PIXELS = np.random.default_rng(0).integers(0, 256, (2, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50", "ResNet50V2", "DenseNet121", "VGG16", "EfficientNetB0"])
def test_keras_own_preprocessing_is_in_the_graph(name: str) -> None:
    module = {"ResNet50V2": "resnet_v2", "DenseNet121": "densenet", "EfficientNetB0": "efficientnet"}.get(name)
    theirs = getattr(keras.applications, module or {"MobileNetV2": "mobilenet_v2"}.get(name, name.lower()))
    expected = theirs.preprocess_input(PIXELS.copy())
    assert np.allclose(_run(f"keras:{name}", _spec(), PIXELS), expected, atol=1e-5)


BUILDERS = sorted(name for name, found in vars(keras.applications).items() if callable(found))
ELSEWHERE = {"MobileNetV3Large": "mobilenet_v3", "MobileNetV3Small": "mobilenet_v3"}
"""The module's name where it has the preprocessing without the model."""


def test_every_model_of_keras_applications_is_found_with_its_own_preprocessing() -> None:
    assert len(BUILDERS) >= 40
    for name in BUILDERS:
        assert application_model(name) is getattr(keras.applications, name)
        module = application_module(name)
        assert module.preprocess_input is not keras.applications.imagenet_utils.preprocess_input
        if name in ELSEWHERE:
            assert module is getattr(keras.applications, ELSEWHERE[name])
        else:
            assert getattr(module, name) is getattr(keras.applications, name)


def test_keras_own_preprocessing_gets_0_to_255_whatever_the_data_set_s_range() -> None:
    expected = keras.applications.mobilenet_v2.preprocess_input(PIXELS.copy())
    spec = _spec(-1.0, 3.0)
    assert np.allclose(_run("keras:MobileNetV2", spec, PIXELS / 255 * 4 - 1), expected, atol=1e-5)


def test_none_is_the_data_set_s_own_values() -> None:
    assert np.array_equal(_run("none", _spec(), PIXELS), PIXELS)


def test_the_user_s_own_function_gets_the_data_set_s_own_values(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def half(x):\n    return x / 2\ndef bad(x):\n    return x.nope\nzero = int\n")
    assert np.array_equal(_run(f"{tmp_path}/mine.py:half", _spec(), PIXELS), PIXELS / 2)
    with pytest.raises(
        ArchitectureError, match=r"mine.py:bad failed on a symbolic float32 \(4, 4, 3\): AttributeError"
    ):
        _run(f"{tmp_path}/mine.py:bad", _spec(), PIXELS)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("keras:Nope", "no model 'Nope'"),
        ("keras:keras", "no model 'keras'"),
        ("mobilenet", "path/to/file.py:function or module:function, got 'mobilenet'"),
        ("numpy:square", "numpy:square failed on a symbolic"),
        ("numpy:shape", "must turn one symbolic Keras tensor into another (use keras.ops), got tuple"),
    ],
)
def test_what_cannot_go_in_front_is_named(name: str, says: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        _run(name, _spec(), PIXELS)
    assert says in str(caught.value)


def test_heads_on_the_sample_get_it_in_0_to_1() -> None:
    sample = keras.Input(SHAPE)
    scaled = keras.Model(sample, unit_scaled(sample, _spec(-1.0, 3.0)))
    assert np.allclose(scaled(PIXELS / 255 * 4 - 1), PIXELS / 255, atol=1e-6)
