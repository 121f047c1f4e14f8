from __future__ import annotations

from branchy.models.b_lenet_paper import b_lenet_paper
from branchy.models.backend import keras


def test_shapes_are_those_of_the_papers_code() -> None:
    built = b_lenet_paper((28, 28, 1), 10)
    assert built.stages[0].cut.shape[1:] == (15, 15, 5)
    dense = [tuple(layer.kernel.shape) for layer in built.model.layers if isinstance(layer, keras.layers.Dense)]
    assert sorted(dense) == [(84, 10), (640, 10), (720, 84)]


def test_the_full_network_has_as_many_parameters_as_the_papers() -> None:
    built = b_lenet_paper((28, 28, 1), 10)
    full = keras.Model(built.model.inputs[0], built.stages[-1].logits)
    convolutions = 25 * 5 + 5 + 25 * 5 * 10 + 10 + 25 * 10 * 20 + 20
    assert full.count_params() == convolutions + 720 * 84 + 84 + 84 * 10 + 10
