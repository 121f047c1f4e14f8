from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_arch import build as own_arch

from branchy.core.cascade import InputSpec, TensorSpec, Uplink, UplinkKind
from branchy.errors import ArchitectureError
from branchy.models.b_lenet import b_lenet
from branchy.models.backend import keras
from branchy.models.branching import BranchyModel, Build, Stage, build
from branchy.models.export import write_keras, write_litert
from branchy.models.own import adapted
from branchy.models.splitting import Network, runner, split
from branchy.models.wanted import Wanted
from branchy.models.zoo import Architecture

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
    network = split(build(architecture, (8, 8, 1), 10, None), DIGITS, [Uplink("activation", "float32")] * 2)
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
    network = split(build(passes_through, (2, 2, 1), 3, None), spec, [Uplink()])
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


def test_a_stage_whose_uplink_is_the_sample_has_its_exit_alone_and_the_next_the_whole_way() -> None:
    uplinks = [Uplink("sample", "uint8"), Uplink("activation", "float32")]
    built = build(b_lenet, (8, 8, 1), 10, None)
    network, usual = split(built, DIGITS, uplinks), split(built, DIGITS, [Uplink("activation", "float32")] * 2)
    edge, fog, cloud = (stage.spec for stage in network.stages)
    assert (edge.activation, fog.input, fog.inputs[0].stage) == (DIGITS.tensor, DIGITS.tensor, None)
    assert (cloud.input.name, cloud.inputs[0].stage) == ("activation", "fog")
    assert set(network.stages[0].model.output) == {"logits"}
    assert edge.flops == usual.stages[0].spec.flops  # its exit looks at the cut
    assert fog.flops > usual.stages[1].spec.flops + edge.flops / 2
    samples = np.random.default_rng(6).integers(0, 17, (5, 8, 8, 1), dtype=np.uint8)
    x: Any = samples
    expected = network.trained(samples)
    for stage in network.stages:
        out = runner(stage)(x)
        assert np.allclose(out["logits"], expected[stage.spec.name], atol=1e-5)
        x = out[stage.spec.activation.name] if stage.spec.activation else None
    assert runner(network.stages[0])(samples)["sample"] is samples


def test_a_head_on_the_input_needs_nothing_of_the_trunk_where_the_sample_is_sent() -> None:
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(64, 3, activation="relu", name="cut")])
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(10))
    wanted = Wanted(cut="cut", heads=("input",), preprocessing="none")
    adapt = adapted(Architecture("own", lambda shape, classes: model), DIGITS, wanted)
    built = build(adapt, (8, 8, 1), 10, None)
    uplinks = {kind: [Uplink(kind, "uint8")] for kind in ("sample", "activation")}
    head, both = (split(built, DIGITS, uplinks[kind]).stages[0].spec for kind in ("sample", "activation"))
    convolution = 9 * 64 + 64
    assert both.parameters - head.parameters == convolution
    assert both.flops - head.flops > 6 * 6 * 2 * 9 * 64


@pytest.mark.parametrize(
    ("architecture", "kinds", "says"),
    [
        (b_lenet, ("activation", "sample"), "stage fog cannot send the sample, as edge before it sends an activation"),
        (own_arch, ("sample", "sample"), "stage box has no exit, so with the sample as its uplink it would do nothing"),
    ],
)
def test_a_sample_that_is_not_there_or_needs_no_stage_is_refused(
    architecture: Build, kinds: tuple[UplinkKind, ...], says: str
) -> None:
    with pytest.raises(ArchitectureError, match=says):
        split(build(architecture, (8, 8, 1), 10, None), DIGITS, [Uplink(kind) for kind in kinds])


def test_flops_count_a_multiply_add_as_two() -> None:
    network = split(build(b_lenet, (8, 8, 1), 10, None), DIGITS, [Uplink()] * 2)
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

    network = split(build(with_own_layer, (8, 8, 1), 10, None), DIGITS, [Uplink()])
    assert [stage.spec.custom_objects for stage in (*network.stages, network.full)] == [True, False, True]
