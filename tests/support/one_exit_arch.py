"""The smallest architecture: one stage, one exit; quick to train and to export."""

from __future__ import annotations

import keras

from branchy.models.branching import BranchyModel, Stage


def build(input_shape: tuple[int, ...], classes: int) -> BranchyModel:
    sample = keras.Input(input_shape)
    logits = keras.layers.Dense(classes)(keras.layers.Flatten()(sample))
    return BranchyModel(keras.Model(sample, logits), [Stage("only", None, logits)])
