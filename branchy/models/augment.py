"""Augmentation: what is done to a training sample, anew each epoch.

Everything is drawn from seed, epoch and the sample's index (`stateless.uniform`), and done to the
data set's own values, before the scaling in the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from branchy.core.cascade import Array, InputSpec
from branchy.models.stateless import uniform

Draw = Callable[[], NDArray[np.float64]]
"""(k,) fresh numbers in [0, 1), one a sample."""

_Number = TypeVar("_Number", np.float64, np.bool_)
_SHIFT, _ERASE, _BRIGHTNESS, _CONTRAST = 1 / 8, 1 / 4, 0.2, 0.25


def _flip(samples: Array, draw: Draw, spec: InputSpec) -> Array:
    return np.where(_each(draw() < 0.5), samples[:, :, ::-1], samples)


def _shift(samples: Array, draw: Draw, spec: InputSpec) -> Array:
    count, height, width, _ = samples.shape
    rows = np.arange(height) - _whole(draw(), int(height * _SHIFT))[:, None]
    columns = np.arange(width) - _whole(draw(), int(width * _SHIFT))[:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    moved = samples[
        np.arange(count)[:, None, None],
        rows.clip(0, height - 1)[:, :, None],
        columns.clip(0, width - 1)[:, None, :],
    ]
    return np.where(inside[..., None], moved, samples.dtype.type(spec.low))


def _erase(samples: Array, draw: Draw, spec: InputSpec) -> Array:
    _, height, width, _ = samples.shape
    rows, columns = (_covered(draw(), side) for side in (height, width))
    return np.where((rows[:, :, None] & columns[:, None, :])[..., None], samples.dtype.type(spec.low), samples)


def _brightness(samples: Array, draw: Draw, spec: InputSpec) -> Array:
    added = _each(_BRIGHTNESS * (spec.high - spec.low) * (2 * draw() - 1))
    return _fitted(samples.astype(np.float64) + added, samples, spec)


def _contrast(samples: Array, draw: Draw, spec: InputSpec) -> Array:
    values = samples.astype(np.float64)
    mean = values.mean(axis=(1, 2, 3), keepdims=True)
    return _fitted(mean + (values - mean) * _each(1 + _CONTRAST * (2 * draw() - 1)), samples, spec)


AUGMENTATIONS: dict[str, Callable[[Array, Draw, InputSpec], Array]] = {
    "flip": _flip,
    "shift": _shift,
    "erase": _erase,
    "brightness": _brightness,
    "contrast": _contrast,
}
"""By name: `flip` mirrors every other sample left to right; `shift` moves by up to an eighth of each side, the
lowest value comes in; `erase` covers a square of a quarter of the sides by the lowest value (DeVries and Taylor,
2017); `brightness` adds up to a fifth of the range; `contrast` spreads around the mean by up to a quarter."""


@dataclass(frozen=True)
class Augmentation:
    """Named augmentations, done one after the other.

    Attributes:
        names: of `AUGMENTATIONS`.
        spec: range of the samples' values.
        seed: of the training.
    """

    names: Sequence[str]
    spec: InputSpec
    seed: int

    def __call__(self, samples: Array, indices: NDArray[np.int64], epoch: int) -> Array:
        """Samples (k, height, width, channels) as they are in an epoch; same shape, dtype and range.

        Args:
            samples: as read.
            indices: (k,) of the samples in their data set.
            epoch: from 0.
        """
        for name in self.names:
            samples = AUGMENTATIONS[name](samples, self._draw(name, indices, epoch), self.spec)
        return samples

    def _draw(self, name: str, indices: NDArray[np.int64], epoch: int) -> Draw:
        """One augmentation's draws; they do not depend on which others are done."""
        number, count = list(AUGMENTATIONS).index(name), 0

        def draw() -> NDArray[np.float64]:
            nonlocal count
            count += 1
            return uniform(indices, self.seed, epoch, number, count)

        return draw


def _each(values: NDArray[_Number]) -> NDArray[_Number]:
    """(k,) so that it goes with samples."""
    return values[:, None, None, None]


def _whole(draws: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Whole numbers in -most..most."""
    return np.floor(draws * (2 * most + 1)).astype(np.int64) - most


def _covered(draws: NDArray[np.float64], side: int) -> NDArray[np.bool_]:
    """(k, side) whether a place is in a stretch of a quarter of the side that begins anywhere it fits."""
    length = max(1, int(side * _ERASE))
    start = np.floor(draws * (side - length + 1))[:, None]
    places = np.arange(side)
    return np.asarray((places >= start) & (places < start + length))


def _fitted(values: NDArray[np.float64], like: Array, spec: InputSpec) -> Array:
    """Values as samples again: within the range, whole where samples are."""
    values = np.clip(values, spec.low, spec.high)
    return (np.rint(values) if like.dtype.kind in "iu" else values).astype(like.dtype)
