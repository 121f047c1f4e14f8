"""The topologies of the tables: the paper's own (the zoo's), what is left without exits, and three with other exits."""

from __future__ import annotations

from branchy.models.b_alexnet import b_alexnet
from branchy.models.b_lenet_paper import b_lenet_paper
from branchy.models.b_resnet import b_resnet
from branchy.models.backend import keras
from branchy.models.branching import BranchyModel, Build, Stage, Tensor

_SMALL = 32
"""Filters of the convolution in exits that are not the paper's; its own have as many."""


def without_exits(build: Build) -> Build:
    """The network that a topology's exits are attached to: its last exit alone, as one stage."""

    def built(input_shape: tuple[int, ...], classes: int) -> BranchyModel:
        branchy = build(input_shape, classes)
        last = branchy.stages[-1]
        return BranchyModel(keras.Model(branchy.model.inputs, last.logits), (Stage(last.name, None, last.logits),))

    return built


def lenet_strided(input_shape: tuple[int, ...], classes: int) -> BranchyModel:
    """The paper's LeNet behind a first exit that sees the sample alone, in strides; the sample goes on."""
    main = without_exits(b_lenet_paper)(input_shape, classes)
    layers = keras.layers
    sample = keras.Input(input_shape)
    cut = layers.Identity()(sample)
    x = layers.Conv2D(8, 5, strides=2, padding="same", activation="relu")(sample)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.MaxPooling2D(2)(x))
    edge, cloud = layers.Dense(classes)(layers.Flatten()(x)), main.model(cut)
    return BranchyModel(keras.Model(sample, [edge, cloud]), (Stage("edge", cut, edge), Stage("cloud", None, cloud)))


def alexnet_pool1(input_shape: tuple[int, ...], classes: int) -> BranchyModel:
    """The paper's B-AlexNet with a first exit after the first pooling; its second is the paper's first."""
    paper = b_alexnet(input_shape, classes)
    convolutions = [layer for layer in paper.model.layers if isinstance(layer, keras.layers.Conv2D)]
    near, (second, _, cloud) = convolutions[1].input, paper.stages
    edge = _exit(near, classes)
    model = keras.Model(paper.model.inputs, [edge, second.logits, cloud.logits])
    return BranchyModel(model, (Stage("edge", near, edge), Stage("fog", second.cut, second.logits), cloud))


def resnet_groups(input_shape: tuple[int, ...], classes: int) -> BranchyModel:
    """The paper's ResNet with an exit after each group of blocks, of one convolution instead of two or three."""
    paper = b_resnet(input_shape, classes)
    near, cloud = paper.stages[1].cut, paper.stages[-1]
    ends = [layer.output for layer in paper.model.layers if isinstance(layer, keras.layers.ReLU)]
    far = next(end for end in reversed(ends) if end.shape[-1] == 2 * near.shape[-1])
    edge, fog = _exit(near, classes), _exit(far, classes)
    model = keras.Model(paper.model.inputs, [edge, fog, cloud.logits])
    return BranchyModel(model, (Stage("edge", near, edge), Stage("fog", far, fog), cloud))


def _exit(x: Tensor, classes: int) -> Tensor:
    """A convolution in steps of 2, pooling, and one dense layer."""
    layers = keras.layers
    x = layers.Conv2D(_SMALL, 3, strides=2, padding="same", activation="relu")(x)
    return layers.Dense(classes)(layers.Flatten()(layers.MaxPooling2D(3, 2, padding="same")(x)))
