from __future__ import annotations

from typing import Any

import pytest

from branchy.models.backend import keras
from branchy.models.branchy_mobilenet import branchy_mobilenet


def _kernels(model: Any) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in model.weights if len(weight.shape) == 4]


def test_it_has_the_weights_of_a_mobilenet_of_half_width() -> None:
    built = branchy_mobilenet((96, 96, 3), 5)
    full = keras.Model(built.model.inputs[0], built.stages[-1].logits)
    theirs = keras.applications.MobileNet((96, 96, 3), alpha=0.5, weights=None, include_top=False)
    assert _kernels(full) == _kernels(theirs)


@pytest.mark.parametrize(("side", "cut"), [(180, 12), (64, 4), (32, 4)])
def test_small_samples_are_halved_once_less(side: int, cut: int) -> None:
    assert branchy_mobilenet((side, side, 3), 5).stages[0].cut.shape[1:] == (cut, cut, 256)
