"""B-LeNet as its paper's own code has it: LeNet 5-10-20-84 for MNIST, with one early exit.

Teerapittayanon, McDanel and Kung, "BranchyNet: Fast Inference via Early Exiting from Deep Neural
Networks", ICPR 2016, section IV (B-LeNet). Widths, paddings and the exit are those of the authors'
published network; its poolings round up, and nothing stands between the last two dense layers.
At 28 x 28 the maps are 30 and 15 (5 channels), 17 and 9 (10), 11 and 6 (20); the early exit's
dense layer sees 8 x 8 x 10 values, the last two 720 and 84.

The cut after the first pooling, 15 x 15 x 5, is larger than the sample: this is the paper's network,
for its table. `b_lenet` is the one to put on tiers.
"""

from __future__ import annotations

from branchy.models.backend import keras
from branchy.models.branching import BranchyModel, Stage, Tensor, check_size

MIN_SIDE = 8


def b_lenet_paper(input_shape: tuple[int, ...], classes: int) -> BranchyModel:
    """Build the paper's B-LeNet with the exits edge and cloud.

    Args:
        input_shape: (height, width, channels), each side at least 8.
        classes: number of classes.

    Raises:
        ArchitectureError: the input is too small.
    """
    check_size("b-lenet-paper", input_shape, MIN_SIDE)
    layers = keras.layers
    sample = keras.Input(input_shape)
    cut = _convolved(sample, 5)
    x = _convolved(_convolved(cut, 10), 20)
    x = layers.Dense(84)(layers.Flatten()(x))
    cloud = layers.Dense(classes)(x)

    x = layers.Conv2D(10, 3, padding="same")(cut)
    x = layers.ReLU()(layers.MaxPooling2D(2, padding="same")(x))
    edge = layers.Dense(classes)(layers.Flatten()(x))
    return BranchyModel(keras.Model(sample, [edge, cloud]), (Stage("edge", cut, edge), Stage("cloud", None, cloud)))


def _convolved(x: Tensor, filters: int) -> Tensor:
    """A 5 x 5 convolution with three zeros around, pooled to half its size (rounded up), rectified."""
    layers = keras.layers
    x = layers.Conv2D(filters, 5)(layers.ZeroPadding2D(3)(x))
    return layers.ReLU()(layers.MaxPooling2D(2, padding="same")(x))
