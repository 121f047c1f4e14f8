"""B-LeNet for three tiers: LeNet-5 with early exits, after BranchyNet (Teerapittayanon et al., 2016, section IV).

The paper's own widths and exits are in `b_lenet_paper`.

Three stages. The first convolution takes larger images in strides, so that what its cut sends
up is smaller than the sample from 28 x 28 on, and each exit before the last is a pooled grid and
one dense layer: a few thousand operations.
"""

from __future__ import annotations

from branchy.models.backend import keras
from branchy.models.branching import BranchyModel, Stage, Tensor, check_size

MIN_SIDE = 8
_STRIDED_FROM = 16
_EXIT_GRID = 8


def b_lenet(input_shape: tuple[int, ...], classes: int) -> BranchyModel:
    """Build a B-LeNet with the exits edge, fog and cloud.

    Args:
        input_shape: (height, width, channels), each side at least 8.
        classes: number of classes.

    Raises:
        ArchitectureError: the input is too small.
    """
    check_size("b-lenet", input_shape, MIN_SIDE)
    layers = keras.layers
    strided = min(input_shape[:2]) >= _STRIDED_FROM
    near, middle, far = (16, 64, 128) if input_shape[-1] > 1 else (6, 32, 64) if strided else (8, 32, 64)

    sample = keras.Input(input_shape)
    x = layers.Conv2D(near, 5 if strided else 3, strides=2 if strided else 1, padding="same", activation="relu")(sample)
    edge_cut = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(middle, 3, padding="same", activation="relu")(edge_cut)
    fog_cut = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(far, 3, padding="same", activation="relu")(fog_cut)
    x = _shrunk(x)
    x = layers.Dense(84, activation="relu")(layers.Flatten()(x))
    cloud = layers.Dense(classes)(x)
    edge, fog = (layers.Dense(classes)(layers.Flatten()(_shrunk(cut))) for cut in (edge_cut, fog_cut))
    return BranchyModel(
        keras.Model(sample, [edge, fog, cloud]),
        (Stage("edge", edge_cut, edge), Stage("fog", fog_cut, fog), Stage("cloud", None, cloud)),
    )


def _shrunk(x: Tensor) -> Tensor:
    """Pooled to a grid of at most 8 x 8."""
    pool = -(-min(x.shape[1:3]) // _EXIT_GRID)
    return keras.layers.AveragePooling2D(pool)(x) if pool > 1 else x
