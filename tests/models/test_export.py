from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from full_disk import files_of_at_most

from branchy.core.cascade import TensorSpec
from branchy.errors import TrainingError
from branchy.models.backend import keras, tf
from branchy.models.export import write_litert

layers = keras.layers


def _model() -> Any:
    """Two outputs of one shape, so that only their names tell them apart; the names sort against the order."""
    sample = keras.Input((4,), name="sample")
    return keras.Model(sample, {"logits": layers.Dense(3)(sample), "activation": layers.Dense(3)(sample)})


def test_outputs_go_by_name_in_one_signature(tmp_path: Path) -> None:
    model, x = _model(), np.random.default_rng(0).normal(size=(1, 4)).astype(np.float32)
    write_litert(model, TensorSpec("sample", (4,)), tmp_path / "m.tflite")
    interpreter = Interpreter(model_path=str(tmp_path / "m.tflite"))
    assert list(interpreter.get_signature_list()) == ["serve"]
    found = interpreter.get_signature_runner("serve")(sample=x)
    expected = model(x)
    for name in ("activation", "logits"):
        assert np.allclose(found[name], expected[name], atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_any_batch_size_runs(batch: int, tmp_path: Path) -> None:
    write_litert(_model(), TensorSpec("sample", (4,)), tmp_path / "m.tflite")
    run = Interpreter(model_path=str(tmp_path / "m.tflite")).get_signature_runner("serve")
    assert run(sample=np.zeros((batch, 4), np.float32))["logits"].shape == (batch, 3)


def test_a_disk_that_is_full_is_an_error_of_the_system_not_of_the_model(tmp_path: Path) -> None:
    """At first TensorFlow cannot write what is converted, at last Python what came of it."""
    sample = keras.Input((100,), name="sample")
    model = keras.Model(sample, {"logits": layers.Dense(300)(sample)})  # 120 kB of weights
    for size_bytes in (100, 50_000):
        with files_of_at_most(size_bytes), pytest.raises(OSError, match=r"File too large") as caught:
            write_litert(model, TensorSpec("sample", (100,)), tmp_path / "edge.tflite")
        assert "\n" not in str(caught.value)
        assert "function_node" not in str(caught.value)


def test_an_operation_that_litert_does_not_have_is_a_failure_that_names_the_stage(tmp_path: Path) -> None:
    class Odd(layers.Layer):
        def call(self, x: Any) -> Any:
            return tf.raw_ops.Betainc(a=tf.abs(x), b=tf.abs(x), x=tf.sigmoid(x))

    sample = keras.Input((4,))
    model = keras.Model(sample, {"logits": Odd()(sample)})
    with pytest.raises(TrainingError, match=r"edge\.tflite: LiteRT cannot express this stage") as caught:
        write_litert(model, TensorSpec("sample", (4,)), tmp_path / "edge.tflite")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "edge.tflite").exists()
