from __future__ import annotations

from branchy.models.b_alexnet import b_alexnet
from branchy.models.backend import keras


def test_shapes_and_widths_are_those_of_the_papers_code() -> None:
    built = b_alexnet((32, 32, 3), 10)
    assert [stage.cut.shape[1:] for stage in built.stages[:-1]] == [(8, 8, 64), (8, 8, 96)]
    dense = [tuple(layer.kernel.shape) for layer in built.model.layers if isinstance(layer, keras.layers.Dense)]
    assert sorted(dense) == sorted([(512, 10), (128, 10), (1024, 256), (256, 128), (128, 10)])


def test_the_full_network_has_as_many_parameters_as_the_papers() -> None:
    built = b_alexnet((32, 32, 3), 10)
    widths = [(3, 32, 5), (32, 64, 5), (64, 96, 3), (96, 96, 3), (96, 64, 3)]
    convolutions = sum(size * size * a * b + b for a, b, size in widths)
    dense = 1024 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10
    full = keras.Model(built.model.inputs[0], built.stages[-1].logits)
    assert full.count_params() == convolutions + dense
