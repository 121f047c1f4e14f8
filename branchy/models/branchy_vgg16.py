"""Branchy VGG16: VGG16's convolutions cut for edge, fog and cloud, for folders of images of 180 x 180.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
section 2, configuration D: five blocks of 3 x 3 convolutions. Cut in three parts as the prototype of
Torres, Martin, Rubio and Diaz, "An open source framework based on Kafka-ML for Distributed DNN inference
over the Cloud-to-Things continuum", JSA 2021, has its VGG16. After which blocks that is cut is not published as text;
here each tier has about a third of the operations. The classifier is the one of Kafka-ML's own VGG16 example
(1024, 512, 256, 128) in place of the paper's two layers of 4,096, which were four fifths of its weights.

At 180 x 180 the cuts are 45 x 45 x 128 and 22 x 22 x 256: both are larger than the sample.
"""

from __future__ import annotations

from branchy.models.backend import keras
from branchy.models.branching import BranchyModel, Stage, Tensor, check_size
from branchy.models.heads import pool_dense

MIN_SIDE = 32
_DENSE = (1024, 512, 256, 128)


def branchy_vgg16(input_shape: tuple[int, ...], classes: int) -> BranchyModel:
    """Build a VGG16 with the exits edge, fog and cloud; the early ones are a pooled grid and one dense layer.

    Args:
        input_shape: (height, width, channels), each side at least 32.
        classes: number of classes.

    Raises:
        ArchitectureError: the input is too small.
    """
    check_size("branchy-vgg16", input_shape, MIN_SIDE)
    layers = keras.layers
    sample = keras.Input(input_shape)
    edge_cut = _block(_block(sample, 2, 64), 2, 128)
    fog_cut = _block(edge_cut, 3, 256)
    x = layers.Flatten()(_block(_block(fog_cut, 3, 512), 3, 512))
    for units in _DENSE:
        x = layers.Dense(units, activation="relu", kernel_initializer="he_normal")(x)
    cloud = layers.Dense(classes)(x)
    edge, fog = (pool_dense(cut, classes) for cut in (edge_cut, fog_cut))
    return BranchyModel(
        keras.Model(sample, [edge, fog, cloud]),
        (Stage("edge", edge_cut, edge), Stage("fog", fog_cut, fog), Stage("cloud", None, cloud)),
    )


def _block(x: Tensor, convolutions: int, filters: int) -> Tensor:
    layers = keras.layers
    for _ in range(convolutions):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer="he_normal")(x)
    return layers.MaxPooling2D(2)(x)
