"""Local response normalisation, which Keras has no layer for."""

from __future__ import annotations

from branchy.models.backend import keras
from branchy.models.branching import Tensor

_BIAS, _ALPHA, _CHANNELS = 2.0, 5e-5, 3


def local_response_normalised(x: Tensor) -> Tensor:
    """Each value over (2 + 5e-5 s) ** 0.75, s the sum of squares of its channel and the two beside it, at its place.

    Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks",
    2012, section 3.3, with the constants of BranchyNet's own code. Of plain operations, so that Keras
    loads it from a file and LiteRT runs it; the power is two square roots, as a general one is slow.

    Args:
        x: (batch, height, width, channels) float32; comes out in that shape.
    """
    ops = keras.ops
    channels, beside = x.shape[-1], _CHANNELS // 2
    squares = ops.pad(ops.square(x), ((0, 0), (0, 0), (0, 0), (beside, beside)))
    total = squares[..., :channels]
    for first in range(1, _CHANNELS):
        total = ops.add(total, squares[..., first : first + channels])
    root = ops.rsqrt(ops.add(ops.multiply(total, _ALPHA), _BIAS))
    return ops.multiply(x, ops.multiply(root, ops.sqrt(root)))
