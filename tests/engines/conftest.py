from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from branchy.core.cascade import FormatName, Source, StageSpec, TensorSpec, Uplink


@dataclass(frozen=True)
class Toy:
    """A stage whose two outputs have the same shape, so that only their names tell them apart."""

    stage: StageSpec
    files: dict[FormatName, Path]

    @staticmethod
    def expected(batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """What the stage gives, by NumPy: activation and logits, each (n, 3)."""
        x = batch.reshape(len(batch), -1).astype(np.float32) / 16
        weights = _weights()
        return {"activation": x @ weights[0], "logits": x @ weights[1]}


def _weights() -> NDArray[np.float32]:
    return np.random.default_rng(7).normal(size=(2, 8, 3)).astype(np.float32)


def _spec(activation: str, logits: str) -> StageSpec:
    return StageSpec(
        name="edge",
        inputs=(Source(None, "sample"),),
        input=TensorSpec("sample", (4, 2), "uint8"),
        activation=TensorSpec(activation, (3,)),
        logits=TensorSpec(logits, (3,)),
        successors=("cloud",),
        uplink=Uplink(),
        parameters=48,
        flops=96,
    )


@pytest.fixture(scope="session")
def make_toy(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Toy]:
    """Builds the stage in Keras and LiteRT with the names that its activation and its logits are to have."""
    made: dict[tuple[str, str], Toy] = {}

    def build(activation: str, logits: str) -> Toy:
        import keras
        import tensorflow as tf

        spec, folder = _spec(activation, logits), tmp_path_factory.mktemp("stage")
        sample = keras.Input((4, 2), dtype="uint8", name="sample")
        x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 16)(sample))
        heads = {name: keras.layers.Dense(3, use_bias=False, name=f"head_{name}") for name in (activation, logits)}
        model = keras.Model(sample, {name: head(x) for name, head in heads.items()})
        for head, weights in zip(heads.values(), _weights(), strict=True):
            head.set_weights([weights])
        model.save(folder / "edge.keras")
        (folder / "edge.tflite").write_bytes(cast(bytes, tf.lite.TFLiteConverter.from_keras_model(model).convert()))
        return Toy(spec, {"keras": folder / "edge.keras", "litert": folder / "edge.tflite"})

    def get(activation: str, logits: str) -> Toy:
        if (activation, logits) not in made:
            made[activation, logits] = build(activation, logits)
        return made[activation, logits]

    return get


@pytest.fixture(scope="session")
def toy(make_toy: Callable[[str, str], Toy]) -> Toy:
    return make_toy("activation", "logits")
