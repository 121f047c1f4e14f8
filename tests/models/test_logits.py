from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from branchy.core.policies import probabilities
from branchy.errors import ArchitectureError
from branchy.models.backend import keras
from branchy.models.logits import check, opened

layers = keras.layers
CLASSES = 4


def _opened(close: Callable[[Any], Any], classes: int = CLASSES, *, binary: bool = False) -> tuple[str, Any, Any]:
    """What was taken off, then our logits and the model's own output for some random samples."""
    sample = keras.Input((6,))
    output = close(layers.Dense(5, activation="relu")(sample))
    logits, closing = opened(output, classes, binary=binary)
    x = np.random.default_rng(1).normal(scale=4, size=(9, 6)).astype(np.float32)
    ours, theirs = (np.asarray(keras.Model(sample, t)(x)) for t in (logits, output))
    check(closing, ours, theirs)
    return closing, ours, theirs


@pytest.mark.parametrize(
    "close",
    [
        lambda x: layers.Dense(CLASSES, activation="softmax")(x),
        lambda x: layers.Softmax()(layers.Dense(CLASSES)(x)),
        lambda x: layers.Activation("softmax")(layers.Dense(CLASSES)(x)),
        lambda x: keras.ops.softmax(layers.Dense(CLASSES)(x)),
        lambda x: keras.ops.nn.softmax(layers.Dense(CLASSES)(x)),
        lambda x: layers.Activation("softmax")(layers.Reshape((CLASSES,))(layers.Conv1D(CLASSES, 1)(x[:, None, :]))),
    ],
)
def test_a_closing_softmax_is_taken_off_in_every_form(close: Callable[[Any], Any]) -> None:
    closing, ours, theirs = _opened(close)
    assert closing == "softmax"
    assert np.allclose(probabilities(ours), theirs, atol=1e-6)
    assert not np.allclose(ours.sum(axis=1), 1, atol=0.01)


def test_a_sigmoid_of_one_output_becomes_two_logits_that_say_the_same() -> None:
    for close in (
        lambda x: layers.Dense(1, activation="sigmoid")(x),
        lambda x: layers.Activation("sigmoid")(layers.Dense(1)(x)),
        lambda x: keras.ops.sigmoid(layers.Dense(1)(x)),
    ):
        closing, ours, theirs = _opened(close, 2, binary=True)
        assert closing == "sigmoid"
        assert ours.shape == (9, 2)
        assert np.allclose(probabilities(ours)[:, 1:], theirs, atol=1e-6)


def test_logits_are_left_as_they_are() -> None:
    closing, ours, theirs = _opened(layers.Dense(CLASSES))
    assert closing == "none"
    assert np.array_equal(ours, theirs)
    _, ours, theirs = _opened(layers.Dense(1), 2, binary=True)
    assert np.array_equal(ours[:, 1:], theirs)
    assert not ours[:, 0].any()


def test_the_model_s_own_closing_layer_is_not_changed() -> None:
    sample, layer = keras.Input((6,)), layers.Dense(CLASSES, activation="softmax")
    opened(layer(sample), CLASSES, binary=False)
    assert layer.activation is keras.activations.softmax


@pytest.mark.parametrize(
    ("close", "classes", "says"),
    [
        (lambda x: layers.Softmax()(layers.Dense(4, activation="softmax")(x)), 4, "one too many"),
        (lambda x: layers.Softmax()(layers.Activation("sigmoid")(layers.Dense(4)(x))), 4, "one too many"),
        (lambda x: layers.Dense(4, activation="sigmoid")(x), 4, "a sigmoid over 4 outputs"),
        (lambda x: layers.Dense(5)(x), 4, r"4 classes, and the model gives (5,)"),
        (lambda x: layers.Dense(1)(x), 2, "give --label-mode binary"),
        (lambda x: layers.Reshape((1, 1, 5))(x), 4, "include_top=False"),
        (lambda x: layers.Lambda(keras.ops.softmax)(layers.Dense(4)(x)), 4, "sum to 1"),
        (lambda x: layers.Identity()(layers.Dense(4, activation="softmax")(x)), 4, "sum to 1"),
        (lambda x: layers.Softmax(axis=0)(layers.Dense(4)(x)), 4, "does not give the same"),
    ],
)
def test_what_is_no_classifier_s_output_is_refused(close: Callable[[Any], Any], classes: int, says: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        _opened(close, classes)
    assert says in str(caught.value)


def test_one_softmax_of_one_output_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="a softmax over 1 outputs"):
        _opened(layers.Dense(1, activation="softmax"), 2, binary=True)
