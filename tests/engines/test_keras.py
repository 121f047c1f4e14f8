from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from branchy.engines import open_engine
from branchy.engines.keras import KerasEngine
from branchy.errors import EngineError


def test_code_in_a_file_is_not_executed(tmp_path: Path, toy: Any) -> None:
    sample = keras.Input((4, 2), dtype="uint8", name="sample")
    trap = keras.layers.Lambda(lambda x: __import__("os").system("touch /tmp/branchy-was-here") or x)
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 16)(sample))
    outputs = {"activation": keras.layers.Dense(3)(trap(x)), "logits": keras.layers.Dense(3)(x)}
    keras.Model(sample, outputs).save(tmp_path / "edge.keras")
    with pytest.raises(EngineError, match=r"Keras cannot load .*lambda"):
        KerasEngine(toy.stage, tmp_path / "edge.keras")


def test_layers_of_the_users_own_point_to_litert(tmp_path: Path, toy: Any) -> None:
    with pytest.raises(EngineError, match="its layers need code of your own, so run it with engine litert"):
        KerasEngine(replace(toy.stage, custom_objects=True), tmp_path / "none.keras")


def test_a_model_that_gives_no_names_is_refused(tmp_path: Path, toy: Any) -> None:
    sample = keras.Input((4, 2), dtype="uint8", name="sample")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 16)(sample))
    keras.Model(sample, [keras.layers.Dense(3)(x), keras.layers.Dense(3)(x)]).save(tmp_path / "edge.keras")
    with pytest.raises(EngineError, match="must return its outputs by name, as a dict"):
        KerasEngine(toy.stage, tmp_path / "edge.keras")


def test_one_trace_serves_every_batch_size(toy: Any) -> None:
    engine = open_engine(toy.stage, toy.files["keras"], "keras", threads=1)
    assert isinstance(engine, KerasEngine)
    for n in range(1, 6):
        engine.run(np.zeros((n, 4, 2), np.uint8))
    assert engine._function.experimental_get_tracing_count() == 1
