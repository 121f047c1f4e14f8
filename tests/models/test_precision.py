from __future__ import annotations

from typing import Any

import numpy as np

from branchy.models.backend import keras
from branchy.models.precision import gpus, mixed, worthwhile

layers = keras.layers


def _model() -> Any:
    """As `splitting` makes them: scaling, then a model in the model."""
    sample = keras.Input((8, 8, 1))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3)(sample))
    near = layers.Dense(3)(layers.Flatten()(x))
    far = layers.Dense(3)(layers.Flatten()(layers.Conv2D(4, 3)(layers.ReLU()(x))))
    segment = keras.Model(sample, {"near": near, "far": far})
    start = keras.Input((8, 8, 1), dtype="uint8")
    return keras.Model(start, segment(layers.Rescaling(1 / 255)(start)))


def test_layers_compute_in_float16_between_scaling_and_logits_while_it_lasts() -> None:
    model = _model()
    before = {layer.name: layer.compute_dtype for layer in model._flatten_layers()}
    with mixed(model):
        kinds = {type(layer).__name__: layer.compute_dtype for layer in model._flatten_layers()}
        assert {kinds[name] for name in ("Conv2D", "BatchNormalization", "ReLU", "Flatten")} == {"float16"}
        assert {kinds[name] for name in ("Rescaling", "Dense")} == {"float32"}
        assert {variable.dtype for variable in model.weights} == {"float32"}
        assert {str(output.dtype) for output in model(np.zeros((1, 8, 8, 1), np.uint8)).values()} == {
            "<dtype: 'float32'>"
        }
    assert {layer.name: layer.compute_dtype for layer in model._flatten_layers()} == before


def test_mixed_outputs_are_near_and_the_model_afterwards_gives_what_it_gave() -> None:
    model, x = _model(), np.random.default_rng(0).integers(0, 255, (4, 8, 8, 1), dtype=np.uint8)
    plain = model(x)
    with mixed(model):
        near = model(x)
    again = model(x)
    for name in plain:
        assert not np.array_equal(plain[name], near[name])
        assert np.allclose(plain[name], near[name], atol=1e-2)
        assert np.array_equal(plain[name], again[name])


def test_without_a_gpu_it_is_not_worthwhile() -> None:
    assert worthwhile() <= bool(gpus())
