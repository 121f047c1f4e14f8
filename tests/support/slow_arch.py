"""An edge that costs next to nothing and a cloud whose convolutions take some 20 ms a sample on one core."""

from __future__ import annotations

import keras

from branchy.models.branching import BranchyModel, Stage

layers = keras.layers


def build(input_shape: tuple[int, ...], classes: int) -> BranchyModel:
    sample = keras.Input(input_shape)
    cut = layers.ReLU()(layers.Conv2D(2, 3, strides=2, padding="same")(sample))
    near = layers.Dense(classes)(layers.Flatten()(cut))
    x = cut
    for _ in range(5):
        x = layers.Conv2D(96, 3, padding="same", activation="relu")(x)
    far = layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))
    return BranchyModel(keras.Model(sample, [near, far]), [Stage("edge", cut, near), Stage("cloud", None, far)])
