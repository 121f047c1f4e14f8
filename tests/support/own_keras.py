"""A user's own classifier as a plain Keras model: a nested backbone, a softmax, its own scaling and its own head."""

from __future__ import annotations

from typing import Any

import keras

layers = keras.layers


def build(input_shape: tuple[int, ...], classes: int) -> Any:
    inner = keras.Input((None, None, 8))
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", use_bias=False)(inner))
    block = keras.Model(inner, layers.ReLU(name="block_out")(layers.Add()([x, inner])), name="block")
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv2D(8, 3, strides=4, activation="relu", name="stem"),
            block,
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.2),
            layers.Dense(classes, activation="softmax"),
        ]
    )


def centred(samples: Any) -> Any:
    return keras.ops.subtract(keras.ops.divide(samples, 127.5), 1.0)


def head(activation: Any, classes: int) -> Any:
    return layers.Dense(classes)(layers.GlobalMaxPooling2D()(activation))
