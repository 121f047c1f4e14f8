"""Exit heads: the small classifiers that branchy attaches to a model's cuts."""

from __future__ import annotations

from collections.abc import Callable

from branchy.errors import ArchitectureError
from branchy.models import functions
from branchy.models.backend import keras
from branchy.models.branching import Tensor

Head = Callable[[Tensor, int], Tensor]
"""From an activation (batch, ...) and the number of classes to logits (batch, classes)."""

INPUT = "input"
"""The head that looks at the sample itself instead of the activation at its cut."""

_GRID = 4
_MOST_FEATURES = 2048
_INPUT_SIDE = 32


def head(name: str) -> Head:
    """The head of that name: `pool-dense`, `input`, or a function of the user's own.

    Raises:
        ArchitectureError: there is no such head, file, module or function.
    """
    if name in HEADS:
        return HEADS[name]
    if ":" not in name:
        raise ArchitectureError(
            f"no head '{name}': expected one of {', '.join(HEADS)}, or path/to/file.py:function or module:function"
        )
    return functions.load(name)


def pool_dense(activation: Tensor, classes: int) -> Tensor:
    """Average pooling and one dense layer.

    A map (height, width, channels) is pooled to a grid of at most 4 x 4, coarser where that would
    be more than 2,048 numbers, so that a head stays small beside what it spares; a sequence
    (steps, channels) to one step; a vector goes in as it is.

    Args:
        activation: (batch, ...) float32, symbolic.
        classes: number of classes.

    Returns:
        (batch, classes) logits.

    Raises:
        ArchitectureError: an activation of other dimensions.
    """
    layers, rank = keras.layers, len(activation.shape) - 1
    if rank == 1:
        return layers.Dense(classes)(activation)
    if rank == 2:
        return layers.Dense(classes)(layers.GlobalAveragePooling1D()(activation))
    if rank == 3:
        return layers.Dense(classes)(layers.Flatten()(_pooled(activation)))
    raise ArchitectureError(
        f"head pool-dense takes (height, width, channels), (steps, channels) or (features,), "
        f"got {activation.shape[1:]}; give a head of your own"
    )


def strided(sample: Tensor, classes: int) -> Tensor:
    """One convolution in strides over the sample itself, pooling, and one dense layer: a few ten thousand operations.

    Args:
        sample: (batch, height, width, channels), float32 in 0..1.
        classes: number of classes.

    Returns:
        (batch, classes) logits.
    """
    layers = keras.layers
    shrink = max(1, -(-min(sample.shape[1:3]) // _INPUT_SIDE))
    x = layers.AveragePooling2D(shrink)(sample) if shrink > 1 else sample
    stride = max(1, min(x.shape[1:3]) // 8)
    x = layers.Conv2D(16, min(5, *x.shape[1:3]), strides=stride, padding="same", activation="relu")(x)
    return layers.Dense(classes)(layers.Flatten()(x))


def _pooled(activation: Tensor) -> Tensor:
    height, width, channels = activation.shape[1:]
    grid = max((g for g in range(1, _GRID + 1) if g * g * channels <= _MOST_FEATURES), default=1)
    if grid == 1:
        return keras.layers.GlobalAveragePooling2D()(activation)
    pool = (-(-height // grid), -(-width // grid))
    return keras.layers.AveragePooling2D(pool, padding="same")(activation) if max(pool) > 1 else activation


HEADS: dict[str, Head] = {"pool-dense": pool_dense, INPUT: strided}
