"""A learned bottleneck at a cut: few numbers of 4 or 8 bits in place of an activation.

The stage before ends in an encoder, whose values in 0..1 are rounded to codes and packed into
bytes; the stage behind begins with a decoder. Range and step are the same for every message, so
nothing but the codes travels. After BottleNet++ (Shao and Zhang, 2020), without its channel noise.

All of plain layers and operations, so that Keras loads it from a file and LiteRT runs it; the codes
are integers as soon as they are rounded, which int8 conversion leaves as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from branchy.models.backend import keras
from branchy.models.branching import Tensor

STRIDES = (1, 2, 4)
"""Of the encoder of a map (height, width, channels), the finest first."""

_NIBBLE = 16
_LEAST_HIDDEN, _MOST_HIDDEN = 32, 128


@dataclass(frozen=True, slots=True)
class Squeeze:
    """How far a bottleneck squeezes.

    Attributes:
        stride: of the encoder; 1 but for maps.
        channels: of the codes, at each place.
        bits: of a code.
    """

    stride: int
    channels: int
    bits: Literal[4, 8]

    def places(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """At which there are codes.

        Args:
            shape: of an activation, channels last, without the batch.

        Returns:
            Its sides without the channels, each divided by the stride and rounded up; () for a vector.
        """
        return tuple(-(-side // self.stride) for side in shape[:-1])

    def size_bytes(self, shape: tuple[int, ...]) -> int:
        """Of packed codes.

        Args:
            shape: of the activation, channels last, without the batch.

        Returns:
            Whole bytes: a last byte that has room left counts.
        """
        return -(-math.prod(self.places(shape)) * self.channels * self.bits // 8)


def ladder(shape: tuple[int, ...], most_bytes: int) -> list[Squeeze]:
    """Bottlenecks for an activation, from small to large: each about twice the one before, the last within a size.

    Codes have 4 bits, and 8 where as many channels as the activation has leave room for it. A map is taken in
    strides where it would have less than two channels.

    Args:
        shape: (channels,), (steps, channels) or (height, width, channels) of the activation.
        most_bytes: of the packed codes; those of the tensor's head are not among them.

    Returns:
        At most six, each with more bytes than the one before; none where a single channel of 4 bits has no room.
    """
    found: dict[int, Squeeze] = {}
    for halvings in range(5, -1, -1):
        squeeze = _within(shape, most_bytes >> halvings)
        if squeeze is not None:
            found.setdefault(squeeze.size_bytes(shape), squeeze)
    return list(found.values())


def _within(shape: tuple[int, ...], size_bytes: int) -> Squeeze | None:
    """The finest stride at which two channels have room; else the one with most room; None where none has."""
    best: Squeeze | None = None
    for stride in STRIDES if len(shape) == 3 else STRIDES[:1]:
        places = math.prod(Squeeze(stride, 1, 8).places(shape))
        channels = 2 * size_bytes // places
        if channels > shape[-1]:
            bits: Literal[4, 8] = 8 if channels >= 2 * shape[-1] else 4
            best = best or Squeeze(stride, shape[-1], bits)
        elif channels:
            best = Squeeze(stride, channels, 4)
        if channels >= 2:
            break
    return best


class Bottleneck:
    """Encoder and decoder at one cut, with weights of their own.

    Args:
        shape: (channels,), (steps, channels) or (height, width, channels) of the activation.
        squeeze: how far.
        seed: of the weights.
    """

    def __init__(self, shape: tuple[int, ...], squeeze: Squeeze, seed: int) -> None:
        self.squeeze = squeeze
        self._shape, self._places = shape, squeeze.places(shape)
        self._codes = math.prod(self._places) * squeeze.channels
        hidden = min(_MOST_HIDDEN, max(_LEAST_HIDDEN, 2 * shape[-1]))
        self._encoder = self._layer(squeeze.channels, "sigmoid", seed, squeeze.stride)
        self._hidden, self._decoder = self._layer(hidden, "relu", seed), self._layer(shape[-1], None, seed)
        self._encoder.build((None, *shape))
        self._hidden.build((None, *self._places, squeeze.channels))
        self._decoder.build((None, *shape[:-1], hidden))

    @property
    def size_bytes(self) -> int:
        """Of the packed codes of one activation."""
        return self.squeeze.size_bytes(self._shape)

    @property
    def weights(self) -> list[Any]:
        """All that is trained."""
        layers: Sequence[Any] = (self._encoder, self._hidden, self._decoder)
        return [weight for layer in layers for weight in layer.trainable_weights]

    def packed(self, activation: Tensor) -> Tensor:
        """Encode and quantise: round(value * levels) of each value in 0..1, levels = 2**bits - 1.

        Args:
            activation: (batch, *shape) float32.

        Returns:
            (batch, size_bytes) uint8. With 8 bits a byte is a code; with 4 byte i has code i in its low half and
            code i + size_bytes in its high half, or 0 where there is none.
        """
        ops = keras.ops
        flat = ops.reshape(self._encoder(activation), (-1, self._codes))
        codes = ops.cast(ops.add(ops.multiply(flat, self._levels), 0.5), "int32")
        if self.squeeze.bits == 4:
            half = self.size_bytes
            padded = ops.pad(codes, ((0, 0), (0, 2 * half - self._codes)))
            codes = ops.add(padded[:, :half], ops.multiply(padded[:, half:], _NIBBLE))
        return ops.cast(codes, "uint8")

    def unpacked(self, packed: Tensor) -> Tensor:
        """Decode: code / levels, in 0..1, through the decoder.

        Args:
            packed: (batch, size_bytes) uint8, of `packed`.

        Returns:
            (batch, *shape) float32, the activations as far as they are in the codes.
        """
        ops = keras.ops
        codes = ops.cast(packed, "int32")
        if self.squeeze.bits == 4:
            high = ops.floor_divide(codes, _NIBBLE)
            low = ops.subtract(codes, ops.multiply(high, _NIBBLE))
            codes = ops.concatenate([low, high], axis=1)[:, : self._codes]
        values = ops.multiply(ops.cast(codes, "float32"), 1 / self._levels)
        return self._decoded(ops.reshape(values, (-1, *self._places, self.squeeze.channels)))

    def passed(self, activation: Tensor) -> Tensor:
        """What `unpacked` gives of what `packed` does, with gradients: those of rounding are 1.

        The straight-through estimator (Bengio et al., 2013).

        Args:
            activation: (batch, *shape) float32.

        Returns:
            (batch, *shape) float32.
        """
        ops = keras.ops
        exact = self._encoder(activation)
        rounded = ops.floor(ops.add(ops.multiply(exact, self._levels), 0.5)) / self._levels
        return self._decoded(exact + ops.stop_gradient(rounded - exact))

    @property
    def _levels(self) -> float:
        return float(2**self.squeeze.bits - 1)

    def _decoded(self, values: Tensor) -> Tensor:
        x, stride = self._hidden(values), self.squeeze.stride
        if stride > 1:
            # A resize to the nearest has no deterministic gradient on a GPU, and UpSampling2D hides the size from
            # the converter.
            ops, (rows, columns), channels = keras.ops, self._places, x.shape[-1]
            x = ops.reshape(ops.tile(x, (1, 1, 1, stride)), (-1, rows, columns * stride, channels))
            x = ops.reshape(ops.tile(x, (1, 1, stride, 1)), (-1, rows * stride, columns * stride, channels))
            x = x[:, : self._shape[0], : self._shape[1], :]
        return self._decoder(x)

    def _layer(self, channels: int, activation: str | None, seed: int, stride: int = 1) -> Any:
        how = {"activation": activation, "kernel_initializer": keras.initializers.GlorotUniform(seed)}
        if len(self._shape) == 3:
            return keras.layers.Conv2D(channels, 3, strides=stride, padding="same", **how)
        return keras.layers.Dense(channels, **how)
