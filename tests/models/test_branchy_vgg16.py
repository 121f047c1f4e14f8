from __future__ import annotations

from branchy.models.backend import keras
from branchy.models.branchy_vgg16 import branchy_vgg16


def test_its_convolutions_are_those_of_vgg16() -> None:
    built = branchy_vgg16((180, 180, 3), 5)
    theirs = keras.applications.VGG16(include_top=False, weights=None, input_shape=(180, 180, 3))
    ours = [layer for layer in built.model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [tuple(layer.kernel.shape) for layer in ours] == [
        tuple(w.shape) for w in theirs.weights if len(w.shape) == 4
    ]


def test_the_cuts_are_after_the_second_and_the_third_block() -> None:
    built = branchy_vgg16((180, 180, 3), 5)
    assert [stage.cut.shape[1:] for stage in built.stages[:-1]] == [(45, 45, 128), (22, 22, 256)]
