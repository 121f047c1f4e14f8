from __future__ import annotations

from typing import Any

import pytest

from branchy.core.cascade import TensorSpec
from branchy.errors import ArchitectureError
from branchy.models.backend import keras
from branchy.models.cuts import Cuts, find_cuts, flops
from branchy.models.graph import calls
from branchy.models.splitting import flops as profiled

layers = keras.layers
SHAPE = (16, 16, 3)


def _residual(sample: Any, *, past: Any = None) -> Any:
    """Stem, a residual block, a block without one, and a classifier."""
    x = layers.Conv2D(4, 3, padding="same", name="stem")(sample)
    x = layers.BatchNormalization(name="stem_norm")(x)
    x = layers.ReLU(name="stem_relu")(x)
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="inside")(x)
    y = layers.Conv2D(4, 3, padding="same", name="inside_too")(y)
    x = layers.Add(name="join")([x, y])
    x = layers.ReLU(name="after_join")(x)
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Conv2D(8, 3, padding="same", name="wide")(x)
    x = keras.activations.silu(x)
    x = layers.Conv2D(2, 3, name="narrow", activation="linear")(x)
    x = layers.Activation("tanh", name="tanh")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(5, name="classes")(x)
    return x if past is None else layers.Add()([x, layers.Dense(5)(past)])


@pytest.fixture(scope="module")
def cuts() -> Cuts:
    sample = keras.Input(SHAPE)
    return find_cuts(sample, _residual(sample))


def test_cuts_are_after_activations_adds_and_pooling_and_where_nothing_passes_by(cuts: Cuts) -> None:
    kept = [cut.layer for cut in cuts.offered]
    assert [name for name in kept if not name.startswith("silu")] == ["stem_relu", "after_join", "pool", "tanh"]
    assert sum(name.startswith("silu") for name in kept) == 1


def test_a_cut_says_its_size_and_the_share_of_flops_before_it(cuts: Cuts) -> None:
    values = {cut.layer: cut.values for cut in cuts.offered}
    assert (values["stem_relu"], values["pool"], values["tanh"]) == (16 * 16 * 4, 8 * 8 * 4, 6 * 6 * 2)
    shares = [cut.flops_share for cut in cuts.offered]
    assert shares == sorted(shares)
    assert 0.05 < shares[0] < 0.4
    assert shares[-1] > 0.95


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("stem", "cannot cut after 'stem': it is not after an activation, an add or a pooling, or an activation"),
        ("stem_norm", "the nearest are stem_relu"),
        ("join", "an activation follows it; the nearest are stem_relu, after_join"),
        ("inside", "another tensor passes by it; the nearest are stem_relu, after_join"),
        ("wide", "the nearest are pool, silu"),
        ("classes", "the nearest are tanh"),
        ("stem_rel", "no layer 'stem_rel'; did you mean stem_relu"),
        ("quux", "no layer 'quux'; did you mean stem_relu, after_join, pool?"),
        ("pool,stem_relu", "they come in this order: stem_relu, pool"),
        ("pool,pool", "different layers"),
        ("auto:9", "only 5 places to cut"),
        ("auto:0", "no layer 'auto:0'"),
        ("", "no layer ''"),
    ],
)
def test_a_bad_cut_is_explained_with_the_nearest_good_ones(cuts: Cuts, wanted: str, says: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        cuts.chosen(wanted)
    assert says in str(caught.value)


def test_named_cuts_are_taken_as_named(cuts: Cuts) -> None:
    assert [cut.layer for cut in cuts.chosen("stem_relu, tanh")] == ["stem_relu", "tanh"]


def test_what_goes_past_every_cut_leaves_none() -> None:
    sample = keras.Input(SHAPE)
    with pytest.raises(ArchitectureError, match="no place where one tensor carries everything"):
        find_cuts(sample, _residual(sample, past=layers.Flatten()(sample))).chosen("auto")


def _chain(*widths: int) -> Cuts:
    sample = x = keras.Input((8, 8, 4))
    for i, width in enumerate(widths):
        x = layers.Conv2D(width, 1, activation="relu", name=f"c{i}")(x)
    return find_cuts(sample, layers.Dense(2)(layers.Flatten()(x)))


def test_auto_takes_the_fewest_values_within_half_a_part_of_each_border() -> None:
    cuts = _chain(8, 6, 8, 8, 5, 8, 8, 8)
    parts = {cut.layer: cut.flops_share for cut in cuts.offered}
    for count in (1, 2, 3):
        taken = cuts.chosen(f"auto:{count}")
        assert len(taken) == count
        for k, cut in enumerate(taken, start=1):
            border, half = k / (count + 1), 0.5 / (count + 1)
            near = [c for c in cuts.offered if abs(parts[c.layer] - border) <= half]
            assert cut in near
            assert cut.values == min(c.values for c in near)
            assert cut is next(c for c in near if c.values == cut.values)
    assert [cut.layer for cut in cuts.chosen("auto")] == [cut.layer for cut in cuts.chosen("auto:2")]


def test_auto_takes_all_where_as_many_are_wanted_as_there_are() -> None:
    cuts = _chain(64, 1, 1, 1)
    assert [cut.layer for cut in cuts.chosen("auto:4")] == ["c0", "c1", "c2", "c3"]


def test_a_layer_that_is_called_again_is_told_from_its_first_call() -> None:
    sample, relu = keras.Input((8, 8, 4)), layers.ReLU(name="relu")
    x = relu(layers.Conv2D(4, 1)(relu(layers.Conv2D(4, 1)(sample))))
    cuts = find_cuts(sample, layers.Dense(2)(layers.Flatten()(x)))
    assert [cut.layer for cut in cuts.offered] == ["relu", "relu:2"]
    assert cuts.chosen("relu:2")[0].tensor is x


def test_flops_are_about_those_that_tensorflow_counts() -> None:
    sample = keras.Input((16, 16, 3))
    x = layers.SeparableConv2D(8, 3, activation="relu")(layers.Conv2D(8, 3, strides=2, padding="same")(sample))
    x = layers.DepthwiseConv2D(3)(layers.Conv2D(8, 3)(x))
    model = keras.Model(sample, layers.Dense(10)(layers.Flatten()(x)))
    estimated = sum(flops(node) for node in calls(model.outputs))
    assert estimated == pytest.approx(profiled(model, TensorSpec("sample", (16, 16, 3))), rel=0.15)


def test_a_transposed_convolution_works_at_each_position_of_its_input() -> None:
    sample = keras.Input((5, 5, 2))
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same")(sample)
    assert flops(calls([x])[-1]) == 2 * (3 * 3 * 2 * 4) * 5 * 5 + 10 * 10 * 4
