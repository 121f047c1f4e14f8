from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_arch import build as own_arch

from branchy.core.cascade import InputSpec, TensorSpec, Uplink
from branchy.models.b_lenet import b_lenet
from branchy.models.backend import keras
from branchy.models.branching import BranchyModel, Build, Stage, build
from branchy.models.export import write_keras, write_litert
from branchy.models.splitting import Network, runner, split

DIGITS = InputSpec(TensorSpec("sample", (8, 8, 1), "uint8"), 0.0, 16.0, channel_order="L")

COMPOSE = """
import pickle, sys
from pathlib import Path
import numpy as np
from branchy.core.wire import check_tensor, decode_tensors, encode_tensors
from branchy.engines import open_engine

folder = Path(sys.argv[1])
stages, full = pickle.loads((folder / "specs").read_bytes())
samples = np.random.default_rng(5).integers(0, 17, (21, 8, 8, 1), dtype=np.uint8)

def load(spec, fmt):
    return open_engine(spec, folder / f"{spec.name}.{'keras' if fmt == 'keras' else 'tflite'}", fmt).run

for fmt in ("keras", "litert"):
    x, logits = samples, []
    for stage in stages:
        out = load(stage, fmt)(x)
        if stage.activation:
            sent = [encode_tensors({"activation": a}, "float32") for a in out["activation"]]
            following = stages[stages.index(stage) + 1]
            x = np.stack([check_tensor(decode_tensors(b), "activation", following.input) for b in sent])
    whole = load(full, fmt)(samples)["logits"]
    print(np.abs(out["logits"] - whole).max(), np.abs(whole).max())
"""


def _perturbed(architecture: Build) -> Network:
    """A network none of whose weights is what initialising gave (batch statistics and biases among them)."""
    network = split(build(architecture, (8, 8, 1), 10, None), DIGITS, Uplink("activation", "float32"))
    rng = np.random.default_rng(3)
    for weight in network.trained.weights:
        # Adding to what is there keeps variances positive.
        weight.assign(np.asarray(weight) + rng.uniform(0.02, 0.2, weight.shape))
    return network


@pytest.mark.parametrize("architecture", [b_lenet, own_arch])
def test_stages_from_their_files_in_a_fresh_process_and_over_the_wire_compose_to_the_full_model(
    architecture: Build, tmp_path: Path
) -> None:
    network = _perturbed(architecture)
    for stage in (*network.stages, network.full):
        write_keras(stage.model, tmp_path / f"{stage.spec.name}.keras")
        write_litert(stage.model, stage.spec.input, tmp_path / f"{stage.spec.name}.tflite")
    (tmp_path / "specs").write_bytes(pickle.dumps(([s.spec for s in network.stages], network.full.spec)))
    done = subprocess.run([sys.executable, "-c", COMPOSE, tmp_path], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        off, largest = (float(number) for number in line.split())
        assert largest > 0.1
        assert off <= 1e-5


def test_every_exit_of_the_trained_model_is_that_of_its_stage() -> None:
    network = _perturbed(own_arch)
    samples = np.random.default_rng(6).integers(0, 17, (5, 8, 8, 1), dtype=np.uint8)
    expected = network.trained(samples)
    x: Any = samples
    for stage in network.stages:
        out = runner(stage)(x)
        if stage.spec.logits is not None:
            assert np.allclose(out["logits"], expected[stage.spec.name], atol=1e-5)
        x = out.get("activation")
    assert set(expected) == {"camera", "hall"}


def test_the_declared_range_is_scaled_to_0_and_1_in_the_first_stage() -> None:
    def passes_through(shape: tuple[int, ...], classes: int) -> BranchyModel:
        sample = keras.Input(shape)
        cut = keras.layers.Flatten()(sample)
        near, far = keras.layers.Dense(classes)(cut), keras.layers.Dense(classes)(keras.layers.ReLU()(cut))
        return BranchyModel(keras.Model(sample, [near, far]), (Stage("edge", cut, near), Stage("cloud", None, far)))

    spec = InputSpec(TensorSpec("sample", (2, 2, 1), "uint8"), 4.0, 20.0, channel_order="L")
    network = split(build(passes_through, (2, 2, 1), 3, None), spec, Uplink())
    sample = np.asarray([4, 8, 12, 20], dtype=np.uint8).reshape(1, 2, 2, 1)
    assert runner(network.stages[0])(sample)["activation"].tolist() == [[0.0, 0.25, 0.5, 1.0]]


def test_specs_say_what_the_graphs_are() -> None:
    network = _perturbed(own_arch)
    camera, box, hall = (stage.spec for stage in network.stages)
    assert (camera.input, box.input) == (DIGITS.tensor, TensorSpec("activation", (4, 4, 6)))
    assert (camera.inputs[0].stage, box.inputs[0].stage, box.inputs[0].tensor) == (None, "camera", "activation")
    assert (camera.successors, box.successors, hall.successors) == (("box",), ("hall",), ())
    assert (box.logits, hall.activation, hall.uplink) == (None, None, None)
    assert camera.uplink == Uplink("activation", "float32")
    # Convolution, batch normalisation's four vectors, and the exit.
    assert camera.parameters == (9 * 6 + 6) + 4 * 6 + (6 * 10 + 10)
    assert hall.parameters == 96 * 10 + 10


def test_flops_count_a_multiply_add_as_two() -> None:
    network = split(build(b_lenet, (8, 8, 1), 10, None), DIGITS, Uplink())
    convolution, exit_ = 2 * 8 * 8 * 9 * 8, 2 * 128 * 10
    assert convolution + exit_ < network.stages[0].spec.flops < 1.4 * (convolution + exit_)
    assert network.full.spec.flops < sum(stage.spec.flops for stage in network.stages)


def test_layers_of_ones_own_are_told_from_keras_own() -> None:
    class Twice(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return 2 * x

    def with_own_layer(shape: tuple[int, ...], classes: int) -> BranchyModel:
        sample = keras.Input(shape)
        cut = Twice()(sample)
        near = keras.layers.Dense(classes)(keras.layers.Flatten()(cut))
        far = keras.layers.Dense(classes)(keras.layers.Flatten()(keras.layers.ReLU()(cut)))
        return BranchyModel(keras.Model(sample, [near, far]), (Stage("edge", cut, near), Stage("cloud", None, far)))

    network = split(build(with_own_layer, (8, 8, 1), 10, None), DIGITS, Uplink())
    assert [stage.spec.custom_objects for stage in (*network.stages, network.full)] == [True, False, True]
