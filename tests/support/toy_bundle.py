"""A bundle of small dense stages, edge (with an exit), hall (without), cloud, whose answers NumPy can work out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np

from branchy.core.cascade import (
    CascadeSpec,
    DType,
    ExitSettings,
    InputSpec,
    Source,
    StageFile,
    StageSpec,
    TensorSpec,
    Uplink,
)
from branchy.store.bundle import Bundle
from branchy.store.manifest import Split, TrainingInfo
from branchy.store.writer import write_bundle

LABELS = ("ant", "bee", "cat")
SAMPLE = TensorSpec("sample", (4, 4, 1), "uint8")
ACTIVATION = TensorSpec("activation", (6,))
LOGITS = TensorSpec("logits", (3,))
FLOPS = {"edge": 300, "hall": 200, "cloud": 100, "full": 500}

_random = np.random.default_rng(11)
EDGE, HALL = (_random.normal(size=size).astype(np.float32) for size in ((16, 6), (6, 6)))
EDGE_HEAD, CLOUD_HEAD = (2 * _random.normal(size=(6, 3)).astype(np.float32) for _ in range(2))


def samples(n: int, seed: int = 0) -> np.ndarray:
    """(n, 4, 4, 1) uint8 in 0..16."""
    return np.random.default_rng(seed).integers(0, 17, (n, 4, 4, 1)).astype(np.uint8)


def activations(batch: np.ndarray) -> np.ndarray:
    """What the edge sends up: (n, 6) float32."""
    return np.maximum(batch.reshape(len(batch), -1).astype(np.float32) / 16 @ EDGE, 0)


def edge_logits(batch: np.ndarray) -> np.ndarray:
    return activations(batch) @ EDGE_HEAD


def cloud_logits(batch: np.ndarray) -> np.ndarray:
    """What the full model gives; the cascade too, where the uplink loses nothing."""
    return np.maximum(activations(batch) @ HALL, 0) @ CLOUD_HEAD


def write_toy_bundle(target: Path, uplink: DType = "float32") -> Bundle:
    """Write it in Keras and LiteRT; the edge's exit is sure from a probability of 0.8 on, at a temperature of 2."""
    from branchy.engines.keras import keras, tf

    def model(took: TensorSpec, outputs: list[tuple[str, list[tuple[np.ndarray, str]]]]) -> Any:
        start = keras.Input(took.shape, dtype=took.dtype, name=took.name)
        x = start
        if took is SAMPLE:
            x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 16)(start))
        layers: dict[int, Any] = {}
        made = {}
        for name, weights in outputs:
            y = x
            for matrix, activation in weights:
                dense = layers.setdefault(
                    id(matrix), keras.layers.Dense(matrix.shape[1], activation=activation, use_bias=False)
                )
                y = dense(y)
                dense.set_weights([matrix])
            made[name] = y
        return keras.Model(start, made)

    edge, hall = (EDGE, "relu"), (HALL, "relu")
    models = {
        "edge": model(SAMPLE, [("activation", [edge]), ("logits", [edge, (EDGE_HEAD, "linear")])]),
        "hall": model(ACTIVATION, [("activation", [hall])]),
        "cloud": model(ACTIVATION, [("logits", [(CLOUD_HEAD, "linear")])]),
        "full": model(SAMPLE, [("logits", [edge, hall, (CLOUD_HEAD, "linear")])]),
    }

    def stage(name: str, behind: str | None, above: str | None) -> StageSpec:
        exit_ = None if name == "hall" else ExitSettings("max_prob", 0.8, temperature=2.0, accuracy=0.5, samples=8)
        return StageSpec(
            name=name,
            inputs=(Source(behind, "activation" if behind else "sample"),),
            input=ACTIVATION if behind else SAMPLE,
            activation=ACTIVATION if above else None,
            logits=LOGITS if exit_ else None,
            successors=(above,) if above else (),
            uplink=Uplink("activation", uplink) if above else None,
            parameters=models[name].count_params(),
            flops=FLOPS[name],
            files={
                "keras": StageFile(f"{name}.keras", "", 0, exit_),
                "litert": StageFile(f"{name}.tflite", "", 0, exit_),
            },
        )

    def fill(directory: Path) -> CascadeSpec:
        for name, made in models.items():
            made.save(directory / f"{name}.keras")
            content = tf.lite.TFLiteConverter.from_keras_model(made).convert()
            (directory / f"{name}.tflite").write_bytes(cast(bytes, content))
        stages = (stage("edge", None, "hall"), stage("hall", "edge", "cloud"), stage("cloud", "hall", None))
        return CascadeSpec("toy", LABELS, InputSpec(SAMPLE, 0.0, 16.0, "L"), stages, stage("full", None, None))

    batch = samples(4, seed=9)
    hall_activation = np.maximum(activations(batch) @ HALL, 0)
    golden = {
        "edge": (batch, edge_logits(batch)),
        "cloud": (hall_activation, cloud_logits(batch)),
        "full": (batch, cloud_logits(batch)),
    }
    info = TrainingInfo("branchy train toy", 3, "toy", "0.1.0")
    return write_bundle(target, fill, training=info, splits={"train": Split(8, "8" * 64)}, golden=golden)


def write_dataset(path: Path, n: int) -> None:
    """An `.npz` with n samples to test, whose true class is the full model's, but for every tenth sample."""
    batch = samples(n, seed=1)
    classes = cloud_logits(batch).argmax(axis=1)
    classes[::10] = (classes[::10] + 1) % 3
    arrays = {"x_train": samples(3), "y_train": np.arange(3), "x_test": batch, "y_test": classes}
    np.savez(path, **arrays, labels=np.array(LABELS), range=np.array([0, 16]))
