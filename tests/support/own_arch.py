"""A user's own architecture: batch normalisation, a residual block, dropout, a stage without an exit."""

from __future__ import annotations

import keras

from branchy.models.branching import BranchyModel, Stage

layers = keras.layers


def build(input_shape: tuple[int, ...], classes: int) -> BranchyModel:
    sample = keras.Input(input_shape)
    x = layers.Conv2D(6, 3, padding="same")(sample)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    first_cut = layers.MaxPooling2D(2)(x)
    near = layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))
    y = layers.SeparableConv2D(6, 3, padding="same", activation="relu")(first_cut)
    second_cut = layers.Add()([y, first_cut])
    z = layers.Dropout(0.3)(layers.Flatten()(layers.Activation("tanh")(second_cut)))
    far = layers.Dense(classes)(z)
    return BranchyModel(
        keras.Model(sample, [near, far]),
        [Stage("camera", first_cut, near), Stage("box", second_cut, None), Stage("hall", None, far)],
    )
