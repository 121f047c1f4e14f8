from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from branchy.models.b_resnet import b_resnet, of_depth
from branchy.models.backend import keras


def _convolutions(model: Any) -> int:
    return sum(isinstance(layer, keras.layers.Conv2D) for layer in model.layers)


@pytest.mark.parametrize("depth", [14, 20, 32])
def test_the_way_to_the_last_exit_has_so_many_layers_with_weights(depth: int) -> None:
    built = of_depth(str(depth))((32, 32, 3), 10)
    full = keras.Model(built.model.inputs[0], built.stages[-1].logits)
    assert _convolutions(full) + 1 == depth


def test_the_exits_are_after_the_first_block_and_after_the_first_group() -> None:
    built = b_resnet((32, 32, 3), 10)
    edge, fog, cloud = built.stages
    assert edge.cut.shape == fog.cut.shape == (None, 30, 30, 16)
    assert cloud.cut is None
    before = [_convolutions(keras.Model(built.model.inputs[0], cut)) for cut in (edge.cut, fog.cut)]
    assert before == [1 + 2, 1 + 2 * 3]


def test_the_dense_layers_of_the_exits_see_what_those_of_the_papers_code_do() -> None:
    built = b_resnet((32, 32, 3), 10)
    kernels = [layer.kernel.shape[0] for layer in built.model.layers if isinstance(layer, keras.layers.Dense)]
    assert sorted(kernels) == [576, 7_200, 14_400]


def test_a_block_with_a_stride_adds_every_other_place_and_zeros_for_the_new_channels() -> None:
    built = b_resnet((8, 8, 1), 3, depth=14)
    add = [layer for layer in built.model.layers if isinstance(layer, keras.layers.Add)][2]
    inner = keras.Model(built.model.inputs[0], [built.stages[1].cut, add.input[1]])
    x, y = (np.asarray(t) for t in inner(np.random.default_rng(0).uniform(size=(2, 8, 8, 1)).astype(np.float32)))
    assert np.array_equal(y[..., :16], x[:, ::2, ::2])
    assert not y[..., 16:].any()
