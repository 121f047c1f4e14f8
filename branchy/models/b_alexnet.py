"""B-AlexNet: an AlexNet for CIFAR-10 with two early exits.

Teerapittayanon, McDanel and Kung, "BranchyNet: Fast Inference via Early Exiting from Deep Neural
Networks", ICPR 2016, section IV (B-AlexNet). Widths and exits are those of the authors' published
network, whose poolings round up. There both branches leave between a convolution and its activation,
and compute again what the main net computes next; here a cut is after what both have in common
(activation, and after the second convolution pooling and normalisation), which gives the same function.
At 32 x 32 the cuts are 8 x 8 x 64 and 8 x 8 x 96, and the exits' dense layers see 512, 128 and 1,024 values.
"""

from __future__ import annotations

from branchy.models.backend import keras
from branchy.models.branching import BranchyModel, Stage, Tensor, check_size
from branchy.models.lrn import local_response_normalised

MIN_SIDE = 16
_DROPPED = 0.5


def b_alexnet(input_shape: tuple[int, ...], classes: int) -> BranchyModel:
    """Build a B-AlexNet with the exits edge, fog and cloud.

    Args:
        input_shape: (height, width, channels), each side at least 16: every pooling then halves something.
        classes: number of classes.

    Raises:
        ArchitectureError: the input is too small.
    """
    check_size("b-alexnet", input_shape, MIN_SIDE)
    layers = keras.layers
    sample = keras.Input(input_shape)
    x = _normalised(_convolved(sample, 32, 5))
    edge_cut = _normalised(_convolved(x, 64, 5))
    fog_cut = _convolved(edge_cut, 96)
    x = _pooled(_convolved(_convolved(fog_cut, 96), 64))
    x = layers.Flatten()(x)
    for units in (256, 128):
        x = layers.Dropout(_DROPPED)(layers.Dense(units, activation="relu")(x))
    cloud = layers.Dense(classes)(x)

    edge = _exit(_convolved(_convolved(edge_cut, 32), 32), classes)
    fog = _exit(_convolved(_normalised(fog_cut), 32), classes)
    return BranchyModel(
        keras.Model(sample, [edge, fog, cloud]),
        (Stage("edge", edge_cut, edge), Stage("fog", fog_cut, fog), Stage("cloud", None, cloud)),
    )


def _convolved(x: Tensor, filters: int, size: int = 3) -> Tensor:
    return keras.layers.Conv2D(filters, size, padding="same", activation="relu")(x)


def _pooled(x: Tensor) -> Tensor:
    """The largest of 3 x 3 in steps of 2; half the size, rounded up."""
    return keras.layers.MaxPooling2D(3, 2, padding="same")(x)


def _normalised(x: Tensor) -> Tensor:
    return local_response_normalised(_pooled(x))


def _exit(x: Tensor, classes: int) -> Tensor:
    return keras.layers.Dense(classes)(keras.layers.Flatten()(_pooled(x)))
