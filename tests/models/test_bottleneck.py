from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchy.core.cascade import TensorSpec
from branchy.models.backend import keras, tf
from branchy.models.bottleneck import Bottleneck, Squeeze, ladder
from branchy.models.export import Numbers, write_keras, write_litert
from branchy.models.splitting import needs_custom_objects

CASES = [
    ((7, 7, 6), Squeeze(1, 3, 4)),  # 147 codes: the last byte has one
    ((7, 5, 6), Squeeze(2, 2, 4)),
    ((9, 9, 4), Squeeze(4, 1, 8)),
    ((5, 3), Squeeze(1, 1, 4)),
    ((10,), Squeeze(1, 4, 8)),
]


def _activations(shape: tuple[int, ...], n: int = 6) -> np.ndarray:
    return np.random.default_rng(1).gamma(1.0, 2.0, (n, *shape)).astype(np.float32)


@pytest.mark.parametrize(("shape", "squeeze"), CASES)
def test_what_is_packed_and_unpacked_is_what_training_sees(shape: tuple[int, ...], squeeze: Squeeze) -> None:
    bottleneck, activations = Bottleneck(shape, squeeze, seed=0), _activations(shape)
    packed = bottleneck.packed(activations)
    assert (packed.dtype, packed.shape) == (tf.uint8, (6, bottleneck.size_bytes))
    assert bottleneck.size_bytes == math.ceil(math.prod(squeeze.places(shape)) * squeeze.channels * squeeze.bits / 8)
    assert len(np.unique(packed)) > 2
    unpacked = bottleneck.unpacked(packed)
    assert unpacked.shape == (6, *shape)
    np.testing.assert_allclose(unpacked, bottleneck.passed(activations), atol=1e-5)


def test_gradients_reach_the_encoder_through_the_rounding() -> None:
    bottleneck, activations = Bottleneck((7, 7, 6), Squeeze(1, 2, 4), seed=0), _activations((7, 7, 6))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(bottleneck.passed(activations)))
    assert all(float(tf.reduce_max(abs(each))) > 0 for each in tape.gradient(loss, bottleneck.weights))
    assert len(bottleneck.weights) == 6


NOT_DETERMINISTIC = {"ResizeNearestNeighborGrad", "ResizeBilinearGrad", "DepthwiseConv2dNativeBackpropFilter"}
"""Of TensorFlow's operations, those that a training which is to repeat itself cannot have on a GPU."""


def test_a_bottleneck_in_strides_trains_by_operations_that_are_deterministic_on_a_gpu() -> None:
    bottleneck = Bottleneck((7, 5, 6), Squeeze(2, 2, 4), seed=0)

    def gradients(activations: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(bottleneck.passed(activations)))
        return tape.gradient(loss, bottleneck.weights)

    graph = tf.function(gradients).get_concrete_function(tf.TensorSpec((None, 7, 5, 6))).graph
    kinds = {operation.type for operation in graph.get_operations()}
    assert "Conv2DBackpropFilter" in kinds
    assert not kinds & NOT_DETERMINISTIC


def test_a_place_of_a_bottleneck_in_strides_comes_back_at_all_the_places_it_stands_for() -> None:
    bottleneck = Bottleneck((5, 6, 3), Squeeze(4, 2, 4), seed=0)
    bottleneck._decoder = lambda x: x
    values = np.random.default_rng(0).random((2, 2, 2, 2)).astype(np.float32)
    found, coarse = np.asarray(bottleneck._decoded(values)), np.asarray(bottleneck._hidden(values))
    assert np.array_equal(found, coarse.repeat(4, axis=1).repeat(4, axis=2)[:, :5, :6])


def test_the_same_seed_gives_the_same_weights() -> None:
    first, same, other = (Bottleneck((10,), Squeeze(1, 4, 8), seed).weights[0].numpy() for seed in (3, 3, 4))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple),
    st.integers(0, 5000),
)
def test_a_ladder_goes_up_within_its_bytes(shape: tuple[int, ...], most_bytes: int) -> None:
    rungs = ladder(shape, most_bytes)
    sizes = [rung.size_bytes(shape) for rung in rungs]
    assert sizes == sorted(set(sizes))
    assert len(rungs) <= 6
    assert all(0 < size <= most_bytes for size in sizes)
    assert all(1 <= rung.channels <= shape[-1] for rung in rungs)
    least = min(Squeeze(stride, 1, 4).size_bytes(shape) for stride in ((1, 2, 4) if len(shape) == 3 else (1,)))
    assert bool(rungs) == (most_bytes >= least)


def test_a_map_is_taken_in_strides_where_it_is_large_beside_the_bytes() -> None:
    assert ladder((7, 7, 6), 784) == [
        Squeeze(2, 3, 4),
        Squeeze(1, 2, 4),
        Squeeze(1, 4, 4),
        Squeeze(1, 6, 4),
        Squeeze(1, 6, 8),
    ]


@pytest.mark.parametrize("numbers", ["float32", "float16", "int8"])
def test_litert_gives_the_codes_and_takes_them(numbers: Numbers, tmp_path: Path) -> None:
    from branchy.engines.litert import _Runner

    shape, squeeze = (7, 5, 6), Squeeze(2, 3, 4)
    bottleneck, activations = Bottleneck(shape, squeeze, seed=0), _activations(shape, 16)
    took = TensorSpec("activation", shape)
    codes = TensorSpec("activation", (bottleneck.size_bytes,), "uint8")
    start = keras.Input(shape, name="activation")
    behind = keras.Input(codes.shape, dtype="uint8", name="activation")
    packs = keras.Model(start, {"activation": bottleneck.packed(start)})
    unpacks = keras.Model(behind, {"logits": bottleneck.unpacked(behind)})
    expected = np.asarray(packs(activations)["activation"])
    write_litert(packs, took, tmp_path / "packs.tflite", numbers, activations)
    write_litert(unpacks, codes, tmp_path / "unpacks.tflite", numbers, expected)
    run = {name: _Runner((tmp_path / f"{name}.tflite").read_bytes(), 1).prepare(16) for name in ("packs", "unpacks")}
    for name, shape_of in (("packs", codes.shape), ("unpacks", shape)):
        (output,) = _Runner((tmp_path / f"{name}.tflite").read_bytes(), 1).outputs.values()
        assert tuple(output["shape"][1:]) == shape_of  # which an engine is checked by
    found = run["packs"](activations)["activation"]
    assert found.dtype == np.uint8
    differ = (found != expected).mean()
    assert differ <= {"float32": 0.01, "float16": 0.1, "int8": 0.8}[numbers]
    restored, want = run["unpacks"](expected)["logits"], np.asarray(unpacks(expected)["logits"])
    allowed = {"float32": 1e-5, "float16": 0.01, "int8": 0.1}[numbers]
    assert np.abs(restored - want).max() <= allowed * np.abs(want).max()


def test_keras_loads_it_from_a_file_without_code(tmp_path: Path) -> None:
    bottleneck = Bottleneck((7, 7, 6), Squeeze(2, 3, 4), seed=0)
    start = keras.Input((7, 7, 6))
    model = keras.Model(start, {"activation": bottleneck.unpacked(bottleneck.packed(start))})
    assert not needs_custom_objects(model)
    write_keras(model, tmp_path / "b.keras")
    loaded = keras.saving.load_model(tmp_path / "b.keras", compile=False, safe_mode=True)
    activations = _activations((7, 7, 6))
    np.testing.assert_allclose(loaded(activations)["activation"], model(activations)["activation"], atol=1e-6)
