from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from branchy.errors import ArchitectureError
from branchy.models.backend import keras
from branchy.models.branching import BranchyModel, Stage, build

layers = keras.layers
SHAPE, CLASSES = (8, 8, 1), 4


class Parts:
    """A two-stage model's tensors, to be put together rightly or wrongly."""

    def __init__(self) -> None:
        self.sample = keras.Input(SHAPE)
        self.wide = layers.Conv2D(2, 3, padding="same", activation="relu")(self.sample)
        self.cut = layers.MaxPooling2D(2)(self.wide)
        self.near = layers.Dense(CLASSES)(layers.Flatten()(self.cut))
        self.deep = layers.Conv2D(3, 3, activation="relu")(self.cut)
        self.far = layers.Dense(CLASSES)(layers.Flatten()(self.deep))
        self.model = keras.Model(self.sample, [self.near, self.far])

    def branchy(self, edge: Stage | None = None, cloud: Stage | None = None, model: Any = None) -> BranchyModel:
        first = edge or Stage("edge", self.cut, self.near)
        return BranchyModel(model or self.model, (first, cloud or Stage("cloud", None, self.far)))


def _built(make: Callable[[Parts], Any], tiers: tuple[str, ...] | None = None) -> BranchyModel:
    return build(lambda shape, classes: make(Parts()), SHAPE, CLASSES, tiers)


def test_a_model_that_keeps_the_contract_is_taken() -> None:
    assert [stage.name for stage in _built(Parts.branchy).stages] == ["edge", "cloud"]


def test_tiers_name_the_stages() -> None:
    assert [stage.name for stage in _built(Parts.branchy, ("gate", "hall")).stages] == ["gate", "hall"]


def _side_way(p: Parts) -> BranchyModel:
    """The cloud needs what came before the cut too: a skip connection past it."""
    joined = layers.Concatenate()([layers.Flatten()(p.deep), layers.Flatten()(p.wide)])
    far = layers.Dense(CLASSES)(joined)
    return BranchyModel(keras.Model(p.sample, [p.near, far]), (Stage("edge", p.cut, p.near), Stage("cloud", None, far)))


def _foreign(p: Parts) -> BranchyModel:
    other = layers.Dense(CLASSES)(keras.Input((5,)))
    return p.branchy(edge=Stage("edge", p.cut, other))


def _two_inputs(p: Parts) -> BranchyModel:
    other = keras.Input((5,))
    far = layers.Dense(CLASSES)(layers.Concatenate()([layers.Flatten()(p.deep), other]))
    return p.branchy(model=keras.Model([p.sample, other], far), cloud=Stage("cloud", None, far))


def _softmax(p: Parts) -> BranchyModel:
    return p.branchy(edge=Stage("edge", p.cut, layers.Softmax()(p.near)))


def _activated(p: Parts) -> BranchyModel:
    far = layers.Dense(CLASSES, activation="softmax")(layers.Flatten()(p.deep))
    return p.branchy(model=keras.Model(p.sample, far), cloud=Stage("cloud", None, far))


def _operation(p: Parts) -> BranchyModel:
    return p.branchy(edge=Stage("edge", p.cut, keras.ops.softmax(p.near)))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p.model, "must return a BranchyModel, got Functional"),
        (lambda p: None, "must return a BranchyModel, got NoneType"),
        (lambda p: 1 / 0, "the architecture function failed: ZeroDivisionError"),
        (lambda p: BranchyModel(p.model, ()), "at least one stage"),
        (lambda p: BranchyModel(p.model, p.near), "must be a list or tuple of Stage"),
        (lambda p: p.branchy(model="model"), "must be a keras.Model, got str"),
        (lambda p: p.branchy(model=keras.Sequential([layers.Dense(2)])), "functional keras.Model"),
        (lambda p: p.branchy(cloud=Stage("edge", None, p.far)), "different names, got edge, edge"),
        (lambda p: p.branchy(cloud=Stage("full", None, p.far)), "'full'"),
        (lambda p: p.branchy(cloud=Stage("a/b", None, p.far)), "'a/b'"),
        (lambda p: p.branchy(cloud=Stage("cloud", p.deep, p.far)), "last stage (cloud) must have logits and no cut"),
        (lambda p: p.branchy(cloud=Stage("cloud", None, None)), "last stage (cloud) must have logits and no cut"),
        (lambda p: p.branchy(edge=Stage("edge", None, p.near)), "stage edge must have a cut"),
        (lambda p: p.branchy(edge=Stage("edge", "pool_3", p.near)), "its cut must be a tensor of the model, got str"),
        (lambda p: p.branchy(edge=Stage("edge", p.sample, p.near)), "would compute nothing"),
        (lambda p: p.branchy(edge=Stage("edge", p.cut, p.wide)), "its logits must be float32 of shape (4,)"),
        (
            lambda p: p.branchy(edge=Stage("edge", p.cut, layers.Dense(5)(p.near))),
            "one for each class, got float32 (5,)",
        ),
        (
            lambda p: p.branchy(edge=Stage("edge", p.deep, None), cloud=Stage("cloud", None, p.near)),
            "its logits (keras_tensor",
        ),
        (lambda p: p.branchy(edge=Stage("edge", p.cut, layers.Dense(CLASSES)(p.far))), "come from a later stage"),
        (lambda p: p.branchy(model=keras.Model(p.sample, p.near)), "among the model's outputs"),
        (lambda p: p.branchy(model=keras.Model(p.cut, p.far)), "one input of shape (8, 8, 1), got (4, 4, 2)"),
        (_side_way, "a cut must be the only way past it"),
        (_foreign, "does not come from the model's input"),
        (_two_inputs, "must have one input"),
        (_softmax, "output of a softmax"),
        (_activated, "output of a softmax"),
        (_operation, "output of a softmax"),
    ],
)
def test_what_breaks_the_contract_is_named_in_one_line(make: Callable[[Parts], Any], says: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        _built(make)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tiers_must_be_as_many_as_stages() -> None:
    with pytest.raises(ArchitectureError, match=r"each of the 2 stages \(edge, cloud\), got 3 \(a, b, c\)"):
        _built(Parts.branchy, ("a", "b", "c"))
