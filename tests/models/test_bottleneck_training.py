from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from branchy.core.cascade import InputSpec, TensorSpec, Uplink
from branchy.datasets import Part
from branchy.errors import DatasetError, TrainingError
from branchy.models import bottleneck_training
from branchy.models.backend import keras
from branchy.models.bottleneck import Bottleneck, Squeeze
from branchy.models.bottleneck_training import Surroundings, accuracies, fit_bottleneck
from branchy.models.branching import BranchyModel, Stage, build
from branchy.models.splitting import LOGITS, Network, runner, split, squeezed

SHAPE, CLASSES = (6, 6, 1), 3
SPEC = InputSpec(TensorSpec("sample", SHAPE, "uint8"), 0.0, 255.0, channel_order="L")
SQUEEZE = Squeeze(1, 4, 4)


class _Pixels:
    def __init__(self) -> None:
        self.values = np.random.default_rng(0).integers(0, 256, (200, *SHAPE)).astype(np.uint8)

    def read(self, index: int) -> np.ndarray:
        return self.values[index]


def _three(shape: tuple[int, ...], classes: int) -> BranchyModel:
    layers = keras.layers
    sample = keras.Input(shape)
    near = layers.Conv2D(8, 3, activation="relu", kernel_initializer="he_normal")(sample)
    middle = layers.Conv2D(8, 3, activation="relu", kernel_initializer="he_normal")(near)
    logits = [
        layers.Dense(classes, kernel_initializer="he_normal")(layers.Flatten()(x)) for x in (sample, near, middle)
    ]
    stages = (Stage("edge", near, logits[0]), Stage("fog", middle, logits[1]), Stage("cloud", None, logits[2]))
    return BranchyModel(keras.Model(sample, logits), stages)


def _network(kinds: Sequence[str] = ("activation", "activation")) -> Network:
    keras.utils.set_random_seed(5)
    uplinks = [Uplink("sample", "uint8") if kind == "sample" else Uplink("activation") for kind in kinds]
    return split(build(_three, SHAPE, CLASSES, None), SPEC, uplinks)


@pytest.fixture
def part() -> Part:
    pixels = _Pixels()
    labels = np.asarray(_network().full.model(pixels.values)["logits"]).argmax(axis=1)
    return Part(pixels, np.arange(200), labels)


def _fit(network: Network, part: Part, monkeypatch: pytest.MonkeyPatch, cut: int = 0, steps: int = 150) -> Bottleneck:
    monkeypatch.setattr(bottleneck_training, "STEPS", steps)
    activation = network.stages[cut].spec.activation
    assert activation is not None
    bottleneck = Bottleneck(activation.shape, SQUEEZE, seed=1)
    fit_bottleneck(Surroundings(network.stages, cut), bottleneck, part, batch_size=16, seed=1)
    return bottleneck


def test_training_brings_the_exits_behind_back_and_leaves_the_stages_as_they_are(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = _network()
    before = [np.array(weight) for weight in network.trained.weights]
    around = Surroundings(network.stages, 0)
    assert accuracies(around, None, part)["cloud"] == 1.0  # whose labels are its own answers
    untrained, trained = Bottleneck((4, 4, 8), SQUEEZE, seed=1), _fit(network, part, monkeypatch)
    features = around.features(part.read(np.arange(len(part)))[0])
    was, now = (float(np.square(each.passed(features) - features).mean()) for each in (untrained, trained))
    assert now < was / 4
    assert list(accuracies(around, trained, part)) == ["fog", "cloud"]
    assert all(np.array_equal(was, now) for was, now in zip(before, network.trained.weights, strict=True))


@pytest.mark.parametrize("kinds", [("activation", "activation"), ("sample", "activation")])
def test_the_stages_get_encoder_and_decoder_and_say_what_was_measured(
    kinds: Sequence[str], part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = _network(kinds)
    bottleneck = _fit(network, part, monkeypatch, cut=1, steps=20)
    found = squeezed(network, 1, bottleneck)
    fog, cloud = (stage.spec for stage in found.stages[1:])
    codes = TensorSpec("activation", (bottleneck.size_bytes,), "uint8")
    assert (fog.activation, fog.uplink, cloud.input) == (codes, Uplink("bottleneck", "uint8"), codes)
    assert fog.flops > network.stages[1].spec.flops
    assert cloud.parameters > network.stages[2].spec.parameters
    assert found.full is network.full
    x = samples = part.read(np.arange(len(part)))[0]
    for stage in found.stages:
        outputs = runner(stage)(x)
        x = outputs[stage.spec.activation.name] if stage.spec.activation else x
    right = (outputs[LOGITS].argmax(axis=1) == part.labels).mean()
    assert right == pytest.approx(accuracies(Surroundings(network.stages, 1), bottleneck, part)["cloud"], abs=0.011)
    assert len(samples) == 200


def test_the_same_seed_trains_the_same_bottleneck(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    first, again = (_fit(_network(), part, monkeypatch, steps=10).weights for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


class _Gone(_Pixels):
    def read(self, index: int) -> np.ndarray:
        raise DatasetError(f"{index}.png: not a readable image")


def test_a_sample_that_goes_away_is_a_failure_that_names_it(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    gone, network = Part(_Gone(), part.indices, part.labels), _network()
    with pytest.raises(
        TrainingError, match=r"TensorFlow failed while training a bottleneck: .*\d+\.png: not a readable image"
    ) as caught:
        _fit(network, gone, monkeypatch, steps=1)
    assert "\n" not in str(caught.value)
    with pytest.raises(TrainingError, match=r"TensorFlow failed while measuring a bottleneck: .*\.png: not a readable"):
        accuracies(Surroundings(network.stages, 0), None, gone)


def test_an_activation_that_is_not_finite_is_a_failure_that_says_what_to_do(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = _network()
    kernel = network.trained.weights[0]
    kernel.assign(np.full(kernel.shape, np.inf))
    with pytest.raises(TrainingError, match=r"loss of the bottleneck after edge became nan.*--uplink activation"):
        _fit(network, part, monkeypatch, steps=1)
