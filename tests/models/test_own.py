from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from branchy.core.cascade import InputSpec, TensorSpec, Uplink
from branchy.core.policies import probabilities
from branchy.errors import ArchitectureError
from branchy.models.backend import keras
from branchy.models.branching import BranchyModel, Stage, build
from branchy.models.own import adapted, tier_names
from branchy.models.splitting import runner, split
from branchy.models.wanted import Wanted
from branchy.models.zoo import Architecture, Backbone

layers = keras.layers
SHAPE, CLASSES = (16, 16, 3), 4
SPEC = InputSpec(TensorSpec("sample", SHAPE, "uint8"), 0.0, 255.0)
PIXELS = np.random.default_rng(2).integers(0, 256, (5, *SHAPE)).astype(np.uint8)
NONE = Wanted(preprocessing="none")


def _classifier(shape: tuple[int | None, ...] = SHAPE, classes: int = CLASSES) -> Any:
    """Rescaling, a nested backbone with batch statistics, dropout and a softmax; layers named as Keras does."""
    inner = keras.Input((None, None, 8))
    x = layers.BatchNormalization(name="batch_normalization")(layers.Conv2D(8, 3, padding="same", name="conv2d")(inner))
    backbone = keras.Model(inner, layers.Add(name="add")([layers.ReLU(name="re_lu")(x), inner]), name="backbone")
    sample = keras.Input(shape)
    x = layers.Rescaling(1 / 255, name="rescaling")(sample)
    x = backbone(layers.Conv2D(8, 3, strides=2, activation="relu", name="conv2d")(x))
    x = layers.Dropout(0.5, name="dropout")(layers.GlobalAveragePooling2D(name="pool")(x))
    model = keras.Model(sample, layers.Dense(classes, activation="softmax", name="dense")(x))
    rng = np.random.default_rng(3)
    for weight in model.weights:
        weight.assign(np.asarray(weight) + rng.uniform(0.1, 0.6, weight.shape))
    return model


def _build(model: Any, wanted: Wanted = NONE, *, classes: int = CLASSES, **known: Any) -> BranchyModel:
    architecture = Architecture("own", lambda shape, count: model, **known)
    return build(adapted(architecture, SPEC, wanted), SHAPE, classes, None)


def test_a_model_gets_exits_and_its_last_one_says_what_it_said() -> None:
    model = _classifier()
    built = _build(model)
    assert [stage.name for stage in built.stages] == ["edge", "fog", "cloud"]
    assert built.pretrained
    network = split(built, SPEC, [Uplink()] * (len(built.stages) - 1))
    found = runner(network.full)(PIXELS)["logits"]
    assert np.allclose(probabilities(found), model(PIXELS.astype(np.float32)), atol=1e-5)


def test_the_model_s_weights_are_shared_not_copied_but_for_its_last_layer() -> None:
    model = _classifier()
    built = _build(model)
    kept = {id(weight) for weight in built.model.weights}
    assert {w.path for w in model.weights if id(w) not in kept} == {"dense/kernel", "dense/bias"}


def test_cuts_and_stages_are_those_asked_for() -> None:
    built = _build(_classifier(), Wanted(cut="conv2d,add", preprocessing="none", heads=("input", "pool-dense")))
    assert [stage.cut.shape[1:] for stage in built.stages[:-1]] == [(7, 7, 8), (7, 7, 8)]
    first, second, _ = built.stages
    # The head on the sample leaves the model's first layer out, the head on the cut does not.
    first_layers, second_layers = (
        {layer.name for layer in keras.Model(built.model.inputs, stage.logits).layers} for stage in (first, second)
    )
    assert "conv2d" not in first_layers
    assert "conv2d" in second_layers


def test_a_head_of_the_user_s_own_is_attached(tmp_path: Path) -> None:
    (tmp_path / "heads.py").write_text(
        "import keras\n"
        "def largest(x, classes):\n"
        "    return keras.layers.Dense(classes, name='mine')(keras.layers.GlobalMaxPooling2D()(x))\n"
        "def fails(x, classes):\n"
        "    return x.nope\n"
        "def wide(x, classes):\n"
        "    return keras.layers.Dense(classes + 1)(keras.layers.Flatten()(x))\n"
    )
    built = _build(_classifier(), Wanted(cut="auto:1", heads=(f"{tmp_path}/heads.py:largest",), preprocessing="none"))
    assert built.stages[0].logits._keras_history.operation.name == "mine"
    for name, says in (("fails", "fails failed on .*AttributeError"), ("wide", r"shape \(4,\), one for each class")):
        with pytest.raises(ArchitectureError, match=says):
            _build(_classifier(), Wanted(cut="auto:1", heads=(f"{tmp_path}/heads.py:{name}",), preprocessing="none"))


def test_a_model_that_is_frozen_keeps_every_weight_while_its_heads_learn() -> None:
    built = _build(_classifier(), Wanted(preprocessing="none", freeze_backbone=True))
    network = split(built, SPEC, [Uplink()] * (len(built.stages) - 1))
    assert len(network.trained.trainable_weights) == 2 * 2  # a kernel and a bias for each exit but the last
    before, was = network.full.model.get_weights(), [np.asarray(w) for w in network.trained.trainable_weights]
    y = {stage.name: np.ones((5, CLASSES), np.float32) for stage in built.stages}
    network.trained.compile("sgd", loss=dict.fromkeys(y, "mse"))
    network.trained.train_on_batch(PIXELS, y)
    assert all(np.array_equal(a, b) for a, b in zip(before, network.full.model.get_weights(), strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(was, network.trained.trainable_weights, strict=True))
    assert not [op for op in built.model.operations if isinstance(op, layers.Dropout)]


def test_without_freezing_all_of_it_is_trained() -> None:
    assert len(_build(_classifier()).model.trainable_weights) == 2 + 2 + 2 + 2 + 2 * 2


def test_freezing_leaves_the_exits_of_a_branchy_model_to_train() -> None:
    def made(exit_layer: Any) -> BranchyModel:
        sample = keras.Input(SHAPE)
        cut = layers.Conv2D(2, 3, activation="relu")(sample)
        near = exit_layer(layers.Flatten()(cut))
        far = layers.Dense(CLASSES)(layers.Flatten()(layers.ReLU()(cut)))
        return BranchyModel(keras.Model(sample, [near, far]), (Stage("edge", cut, near), Stage("cloud", None, far)))

    assert len(_build(made(layers.Dense(CLASSES)), Wanted(freeze_backbone=True)).model.trainable_weights) == 2
    with pytest.raises(ArchitectureError, match="nothing to train"):
        _build(made(lambda x: x[:, :CLASSES]), Wanted(freeze_backbone=True))


def test_features_get_a_classifier_of_branchy_s_that_is_trained_even_when_the_rest_is_frozen() -> None:
    model = _classifier()
    features = keras.Model(model.inputs, model.get_layer("pool").input)
    built = _build(Backbone(features), Wanted(cut="conv2d", preprocessing="none", freeze_backbone=True))
    assert not built.pretrained
    assert len(built.model.trainable_weights) == 2 * 2


def test_a_sigmoid_becomes_two_logits() -> None:
    sample = keras.Input(SHAPE)
    x = layers.Conv2D(2, 3, activation="relu")(sample)
    model = keras.Model(sample, layers.Dense(1, activation="sigmoid")(layers.Flatten()(x)))
    built = _build(model, Wanted(cut="auto:1", preprocessing="none", label_mode="binary"), classes=2)
    found = runner(split(built, SPEC, [Uplink()] * (len(built.stages) - 1)).full)(PIXELS)["logits"]
    assert np.allclose(probabilities(found)[:, 1:], model(PIXELS.astype(np.float32)), atol=1e-5)


def test_a_sequential_model_that_was_not_built_yet_is_built_for_the_samples() -> None:
    model = keras.Sequential([layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(CLASSES)])
    assert len(_build(model, Wanted(cut="auto:1", preprocessing="none")).stages) == 2


def test_a_model_for_samples_of_any_size_is_taken() -> None:
    assert _build(_classifier((None, None, 3))).stages[0].cut.shape[1:3] == (7, 7)


def test_the_preprocessing_that_is_known_is_taken_unless_told() -> None:
    sample = keras.Input(SHAPE)
    cut = layers.ReLU()(sample)
    model = keras.Model(sample, layers.Dense(CLASSES)(layers.Flatten()(cut)))
    for wanted, low in ((None, -1.0), ("none", 0.0)):
        built = _build(model, Wanted(cut="auto:1", preprocessing=wanted), preprocessing="keras:MobileNetV2")
        relu = keras.Model(
            built.model.inputs, built.stages[0].cut._keras_history.operation._inbound_nodes[-1].input_tensors
        )
        assert np.min(relu([np.zeros((1, *SHAPE), np.float32)])[0]) == low


def test_preprocessing_may_bring_samples_to_the_model_s_size(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def grey(x):\n    return x[:, 4:12, 4:12, :1] / 255\n")
    model = keras.Sequential([layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(CLASSES)])
    built = _build(model, Wanted(cut="auto:1", preprocessing=f"{tmp_path}/mine.py:grey"))
    assert built.model.inputs[0].shape[1:] == SHAPE
    assert built.stages[0].cut.shape[1:] == (6, 6, 4)


def test_stages_are_called_edge_fog_and_cloud() -> None:
    assert tier_names(1) == ("cloud",)
    assert tier_names(2) == ("edge", "cloud")
    assert tier_names(3) == ("edge", "fog", "cloud")
    assert tier_names(5) == ("edge", "fog-1", "fog-2", "fog-3", "cloud")


# --- what is refused -------------------------------------------------------------------------------------------------


def _two_inputs() -> Any:
    one, other = keras.Input(SHAPE, name="left"), keras.Input(SHAPE, name="right")
    return keras.Model([one, other], layers.Dense(CLASSES)(layers.Flatten()(layers.Add()([one, other]))))


def _two_outputs() -> Any:
    model = _classifier()
    return keras.Model(model.inputs, [model.outputs[0], model.get_layer("pool").output])


def _no_cut() -> Any:
    sample = keras.Input(SHAPE)
    x = layers.Dense(CLASSES)(layers.Flatten()(layers.Conv2D(2, 3, activation="relu")(sample)))
    return keras.Model(sample, layers.Add()([x, layers.Dense(CLASSES)(layers.Flatten()(sample))]))


class _Subclassed(keras.Model):
    def call(self, x: Any) -> Any:
        return x


@pytest.mark.parametrize(
    ("make", "wanted", "says"),
    [
        (_two_inputs, NONE, "one input and one output, got 2 (left, right) and 1"),
        (_two_outputs, NONE, "one input and one output, got 1 "),
        (_no_cut, NONE, "no place where one tensor carries everything"),
        (_Subclassed, NONE, "functional or Sequential, got _Subclassed with a call of its own"),
        (lambda: "model", Wanted(), "must return a BranchyModel or a Keras model, got str"),
        (_two_inputs, Wanted(), "one input and one output"),
        (_classifier, Wanted(), "give --preprocessing none (the data set's own, 0..255), keras:NAME"),
        (lambda: _classifier(classes=7), NONE, "the data set has 4 classes, and the model gives (7,)"),
        (
            lambda: _classifier((32, 32, 3)),
            NONE,
            "samples (32, 32, 3), and gets (16, 16, 3); give --height 32",
        ),
        (lambda: _classifier((16, 16, 1)), NONE, "samples (16, 16, 1), and gets (16, 16, 3)"),
        (_classifier, Wanted(preprocessing="none", label_mode="binary"), "needs two classes, and the data set has 4"),
        (_classifier, Wanted(preprocessing="none", heads=("input",)), "give input,pool-dense"),
        (_classifier, Wanted(preprocessing="none", heads=("pool-dense", "input")), "only the first stage has"),
        (_classifier, Wanted(preprocessing="none", heads=("pool-dense",) * 3), "one for each of 2 cuts, got 3"),
        (_classifier, Wanted(preprocessing="none", heads=("conv",)), "no head 'conv'"),
        (_classifier, Wanted(preprocessing="none", cut="conv2d,nope"), "no layer 'nope'"),
    ],
)
def test_what_cannot_be_used_is_explained_in_one_line(make: Any, wanted: Wanted, says: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        _build(make(), wanted)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wanted", [Wanted(cut="auto"), Wanted(heads=("pool-dense",)), Wanted(preprocessing="none")], ids=str
)
def test_a_branchy_model_says_itself_where_it_is_cut(wanted: Wanted) -> None:
    sample = keras.Input(SHAPE)
    logits = layers.Dense(CLASSES)(layers.Flatten()(sample))
    with pytest.raises(ArchitectureError, match="is for a plain Keras model"):
        _build(BranchyModel(keras.Model(sample, logits), (Stage("cloud", None, logits),)), wanted)


def test_random_weights_are_not_frozen() -> None:
    with pytest.raises(ArchitectureError, match="those of own are random; give a trained one"):
        _build(_classifier(), Wanted(preprocessing="none", freeze_backbone=True), random=True)
