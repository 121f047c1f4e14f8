from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from branchy.models.backend import keras
from branchy.models.graph import calls, carriers, inlined, is_graph, name_apart

layers = keras.layers

Steps = list[tuple[list[int], list[int]]]


# --- liveness --------------------------------------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Steps, int]:
    """Steps that lead from value 0 to a sink, some of which make two values; and the sink."""
    steps: Steps = []
    values = 1
    for _ in range(draw(st.integers(1, 9))):
        newest = [values - 1] if draw(st.booleans()) else []
        taken = {*newest, *draw(st.lists(st.integers(0, values - 1), min_size=1 - len(newest), max_size=2))}
        made = list(range(values, values + draw(st.sampled_from([1, 1, 1, 2]))))
        values = made[-1] + 1
        steps.append((sorted(taken), made))
    sink = draw(st.sampled_from(steps[-1][1]))
    needed: set[int] = {sink}
    kept: Steps = []
    for taken, made in reversed(steps):
        if needed & set(made):
            needed |= set(taken)
            kept.insert(0, (taken, made))
    return kept, sink


def _connected(steps: Steps, source: int, sink: int, without: int) -> bool:
    reached = {source} - {without}
    for taken, made in steps:
        if reached & set(taken):
            reached |= set(made) - {without}
    return sink in reached


@given(graphs())
def test_a_value_carries_everything_just_when_taking_it_away_parts_input_and_output(graph: tuple[Steps, int]) -> None:
    steps, sink = graph
    made = [value for _, values in steps for value in values]
    parting = [v for v in made if v != sink and not _connected(steps, 0, sink, without=v)]
    assert carriers(steps, 0, sink) == parting


def test_a_way_past_a_value_is_seen() -> None:
    chain: Steps = [([0], [1]), ([1], [2]), ([2], [3]), ([3], [4])]
    assert carriers(chain, 0, 4) == [1, 2, 3]
    assert carriers([*chain[:2], ([2, 1], [3]), chain[3]], 0, 4) == [1, 3]
    assert carriers([*chain[:3], ([3, 0], [4])], 0, 4) == []


# --- inlining --------------------------------------------------------------------------------------------------------


def _block(name: str, inner: str = "conv") -> Any:
    sample = keras.Input((6, 6, 2))
    x = layers.Conv2D(2, 3, padding="same", name=inner)(sample)
    return keras.Model(sample, layers.Add()([x, sample]), name=name)


def _nested() -> Any:
    """Functional in Sequential in functional, two models with layers of one name, and one model called twice."""
    first, second = _block("first"), _block("second")
    sample = keras.Input((6, 6, 2))
    chain = keras.Sequential([first, layers.ReLU(), second], name="chain")
    x = first(chain(sample))
    return keras.Model(sample, layers.Dense(3)(layers.Dropout(0.5)(layers.Flatten()(x))))


def test_nested_models_become_one_flat_graph_that_does_the_same() -> None:
    model, sample = _nested(), keras.Input((6, 6, 2))
    output = inlined(model, sample)
    nodes = calls([output])
    name_apart(nodes)
    assert not [node for node in nodes if isinstance(node.operation, keras.Model)]
    assert len(nodes) == 1 + 4 + 3 + 3
    x = np.random.default_rng(0).normal(size=(3, 6, 6, 2)).astype(np.float32)
    assert np.array_equal(keras.Model(sample, output)(x), model(x))


def test_inlined_layers_are_the_model_s_own() -> None:
    model, sample = _nested(), keras.Input((6, 6, 2))
    nodes = calls([inlined(model, sample)])
    name_apart(nodes)
    flat = keras.Model(sample, nodes[-1].output_tensors)
    assert {id(w) for w in flat.weights} == {id(w) for w in model.weights}


def test_dropout_can_be_left_out() -> None:
    sample = keras.Input((6, 6, 2))
    kinds = [type(node.operation) for node in calls([inlined(_nested(), sample, as_in_use=True)])]
    assert layers.Dropout not in kinds
    assert layers.Flatten in kinds


def test_each_call_comes_after_those_it_takes_from() -> None:
    sample = keras.Input((6, 6, 2))
    made: set[int] = set()
    for node in calls([inlined(_nested(), sample)]):
        assert {id(t) for t in node.input_tensors} <= made
        made |= {id(t) for t in node.output_tensors}


def test_names_that_two_layers_share_are_told_apart_and_the_first_is_kept() -> None:
    sample = keras.Input((6, 6, 2))
    nodes = calls([_block("b", "conv_2")(_block("a", "conv")(sample))])
    nodes = calls([inlined(_block("c", "conv"), inlined(_block("b", "conv_2"), inlined(_block("a", "conv"), sample)))])
    name_apart(nodes)
    names = [node.operation.name for node in nodes if isinstance(node.operation, layers.Conv2D)]
    assert names == ["conv", "conv_2", "conv_3"]


def test_a_model_with_a_call_of_its_own_is_no_graph() -> None:
    class Odd(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    sample = keras.Input((4,))
    assert is_graph(keras.Model(sample, layers.Dense(2)(sample)))
    assert is_graph(keras.Sequential([layers.Dense(2)]))
    assert not is_graph(Odd())
    assert not is_graph(Odd(sample, layers.Dense(2)(sample)))
    assert not is_graph(layers.Dense(2))
