from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from branchy.core import wire
from branchy.datasets import load
from branchy.engines import open_engine
from branchy.models import export
from branchy.models.splitting import Network
from branchy.models.wanted import Sends, Wanted
from branchy.runner.architecture import build_network
from branchy.runner.exporting import Exporter
from branchy.runner.parts import divide

ERFINV = """
import keras
from branchy.models.branching import BranchyModel, Stage
def build(input_shape, classes):
    sample = keras.Input(input_shape)
    flat = keras.layers.Flatten()(sample)
    near = keras.layers.Dense(classes)(flat)
    far = keras.layers.Dense(classes)(keras.ops.erfinv(0.5 * flat))
    return BranchyModel(keras.Model(sample, [near, far]), [Stage("edge", flat, near), Stage("cloud", None, far)])
"""


@pytest.fixture(scope="module")
def network() -> Network:
    return build_network("b-lenet", load("digits"), Wanted(), None, Sends(dtype="uint8"))


def test_int8_ranges_come_from_training_samples_as_the_int8_stages_and_codecs_hand_them_on(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, np.ndarray] = {}
    write = export.write_litert

    def write_and_keep(model: Any, took: Any, path: Path, numbers: Any, rows: np.ndarray) -> None:
        seen[path.name] = rows
        write(model, took, path, numbers, rows)

    monkeypatch.setattr(export, "write_litert", write_and_keep)
    train = divide(load("digits"), 0.2, 0)["train"]
    with ExitStack() as stack:
        made = Exporter(network, train, tmp_path, stack).export("litert-int8")
    assert made.files["fog"] == "fog-int8.tflite"
    trained_on = {sample.tobytes() for sample in train.read(np.arange(len(train)))[0]}
    assert {row.tobytes() for row in seen["edge-int8.tflite"]} <= trained_on
    edge = open_engine(network.stages[0].spec, tmp_path / "edge-int8.tflite", "litert")
    left = edge.run(seen["edge-int8.tflite"])["activation"]
    edge.close()
    travelled = [wire.decode_tensors(wire.encode_tensors({"activation": row}, "uint8")) for row in left]
    assert np.array_equal(seen["fog-int8.tflite"], np.stack([tensors["activation"] for tensors in travelled]))


def test_a_stage_that_litert_cannot_express_says_what_it_lacks_and_stays_in_keras(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "own.py").write_text(ERFINV)
    data = load("digits")
    network = build_network(f"{tmp_path}/own.py:build", data, Wanted(), None, Sends())
    with ExitStack() as stack, caplog.at_level(logging.WARNING, "branchy"):
        made = Exporter(network, data.pool, tmp_path, stack).export("litert")
    assert made.files == {"edge": "edge.tflite", "cloud": "cloud.keras", "full": "model.keras"}
    assert "cloud.tflite: LiteRT cannot express this stage: it has no Erfinv; in format litert it runs as keras" in (
        caplog.messages
    )


def test_flags_know_every_format() -> None:
    from branchy.cli import FORMATS
    from branchy.config import ServeSettings
    from branchy.core.cascade import FormatName

    assert set(FORMATS) == set(get_args(FormatName))
    assert set(get_args(ServeSettings.model_fields["format"].annotation)) == {"auto", *FORMATS}
