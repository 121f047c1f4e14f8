"""Branchy MobileNet: depthwise separable blocks, for edge boxes with little compute.

Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto and Adam, "MobileNets: Efficient Convolutional
Neural Networks for Mobile Vision Applications", 2017, table 1, at half its width (section 3.3). The exits are
branchy's: after the sixth block, where the activation at float16 is smaller than an image of 180 x 180, and
the last. The edge has two fifths of the operations, and there are two tiers: the edge box and what is behind it.

At 180 x 180 the cut is 12 x 12 x 256. Samples with a side below 64 are not halved by the first
convolution, so that 32 x 32 has a cut of 4 x 4 x 256.
"""

from __future__ import annotations

from branchy.models.backend import keras
from branchy.models.branching import BranchyModel, Stage, Tensor, check_size
from branchy.models.heads import pool_dense

MIN_SIDE = 32
_HALVED_FROM = 64
_FIRST = 16
_EDGE = ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (256, 2))
_CLOUD = (*((256, 1),) * 5, (512, 2), (512, 1))
"""Channels and stride of each block."""


def branchy_mobilenet(input_shape: tuple[int, ...], classes: int) -> BranchyModel:
    """Build a MobileNet of half width with the exits edge and cloud.

    Args:
        input_shape: (height, width, channels), each side at least 32.
        classes: number of classes.

    Raises:
        ArchitectureError: the input is too small.
    """
    check_size("branchy-mobilenet", input_shape, MIN_SIDE)
    layers = keras.layers
    sample = keras.Input(input_shape)
    stride = 2 if min(input_shape[:2]) >= _HALVED_FROM else 1
    x = _rectified(layers.Conv2D(_FIRST, 3, stride, padding="same", use_bias=False)(sample))
    for filters, stride in _EDGE:
        x = _separable(x, filters, stride)
    cut = x
    for filters, stride in _CLOUD:
        x = _separable(x, filters, stride)
    cloud = layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))
    edge = pool_dense(cut, classes)
    return BranchyModel(keras.Model(sample, [edge, cloud]), (Stage("edge", cut, edge), Stage("cloud", None, cloud)))


def _separable(x: Tensor, filters: int, stride: int) -> Tensor:
    """A 3 x 3 convolution of each channel by itself, then one of 1 x 1 over all of them."""
    layers = keras.layers
    x = _rectified(layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False)(x))
    return _rectified(layers.Conv2D(filters, 1, use_bias=False)(x))


def _rectified(x: Tensor) -> Tensor:
    return keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
