"""B-ResNet: a residual network of 6n + 2 layers for CIFAR-10 with two early exits.

Teerapittayanon, McDanel and Kung, "BranchyNet: Fast Inference via Early Exiting from Deep Neural
Networks", ICPR 2016, section IV (B-ResNet), on He, Zhang, Ren and Sun, "Deep Residual Learning for
Image Recognition", CVPR 2016, section 4.2: three groups of n blocks of 16, 32 and 64 channels, with
shortcuts without weights (option A). The exits are where BranchyNet's own code has them, after the first
block and after the first group; from there too are a first convolution without padding, and a last pooling
of 6 x 6 in steps of 1. At 32 x 32 the maps are 30, 15 and 8 wide, both cuts are 30 x 30 x 16, and the exits'
dense layers see 7,200, 14,400 and 576 values.

What differs: that code's first group has one block more (and so 6n + 4 layers), and its first exit ends in two
dense layers with nothing between them, which one does as well: a product of matrices is a matrix.
"""

from __future__ import annotations

from functools import partial

from branchy.errors import ArchitectureError
from branchy.models.backend import keras
from branchy.models.branching import BranchyModel, Build, Stage, Tensor, check_size
from branchy.models.lrn import local_response_normalised

MIN_SIDE = 8
DEPTH, LEAST, MOST = 20, 14, 1202
"""Layers unless told; from two blocks a group, as the exits need, to the most that He et al. tried."""

_LAST_POOL = 6


def of_depth(text: str) -> Build:
    """The architecture function of a B-ResNet of so many layers.

    Raises:
        ArchitectureError: not a number 6n + 2 in 14..1202.
    """
    depth = int(text) if text.isascii() and text.isdecimal() else 0
    if not (LEAST <= depth <= MOST and depth % 6 == 2):
        raise ArchitectureError(
            f"b-resnet:DEPTH: expected 6n + 2 layers from {LEAST} to {MOST}, such as b-resnet:110; got {text!r}"
        )
    return partial(b_resnet, depth=depth)


def b_resnet(input_shape: tuple[int, ...], classes: int, depth: int = DEPTH) -> BranchyModel:
    """Build a B-ResNet with the exits edge, fog and cloud.

    Args:
        input_shape: (height, width, channels), each side at least 8.
        classes: number of classes.
        depth: layers, 6n + 2 with n of at least 2.

    Raises:
        ArchitectureError: the input is too small.
    """
    check_size("b-resnet", input_shape, MIN_SIDE)
    layers, blocks = keras.layers, (depth - 2) // 6
    sample = keras.Input(input_shape)
    x = layers.ReLU()(_convolved(sample, 16, padding="valid"))
    x = edge_cut = _block(x, 16)
    for _ in range(blocks - 1):
        x = _block(x, 16)
    fog_cut = x
    for filters in (32, 64):
        x = _block(x, filters, stride=2)
        for _ in range(blocks - 1):
            x = _block(x, filters)
    window = [min(_LAST_POOL, side) for side in x.shape[1:3]]
    cloud = layers.Dense(classes)(layers.Flatten()(layers.AveragePooling2D(window, strides=1)(x)))

    x = local_response_normalised(edge_cut)
    for _ in range(2):
        x = layers.Conv2D(32, 3, padding="same", activation="relu", kernel_initializer="he_normal")(x)
    edge = layers.Dense(classes)(layers.Flatten()(layers.MaxPooling2D(3, 2, padding="same")(x)))
    fog = layers.Dense(classes)(layers.Flatten()(_block(fog_cut, 16)))
    return BranchyModel(
        keras.Model(sample, [edge, fog, cloud]),
        (Stage("edge", edge_cut, edge), Stage("fog", fog_cut, fog), Stage("cloud", None, cloud)),
    )


def _block(x: Tensor, filters: int, stride: int = 1) -> Tensor:
    """Two convolutions and what goes past them: x itself, or every other place of it and zeros for the new channels."""
    layers = keras.layers
    past = x
    if stride > 1:
        # Zeros on both sides, so that a convolution has its centre at the places that the shortcut keeps.
        y = _convolved(layers.ZeroPadding2D(1)(x), filters, stride, padding="valid")
        past = layers.AveragePooling2D(1, strides=stride)(x)
        past = keras.ops.pad(past, ((0, 0), (0, 0), (0, 0), (0, filters - x.shape[-1])))
    else:
        y = _convolved(x, filters)
    y = _convolved(layers.ReLU()(y), filters)
    return layers.ReLU()(layers.Add()([y, past]))


def _convolved(x: Tensor, filters: int, stride: int = 1, padding: str = "same") -> Tensor:
    """A 3 x 3 convolution and its batch normalisation."""
    layers = keras.layers
    x = layers.Conv2D(filters, 3, stride, padding, use_bias=False, kernel_initializer="he_normal")(x)
    return layers.BatchNormalization()(x)
