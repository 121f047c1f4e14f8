"""The contract that every engine passes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from branchy.core.cascade import FormatName, TensorSpec
from branchy.engines import open_engine
from branchy.engines.base import Engine
from branchy.errors import EngineError

FORMATS: tuple[FormatName, ...] = ("litert", "keras")
SIZES = (1, 3, 4, 16, 21, 33)


@pytest.fixture(params=FORMATS)
def fmt(request: pytest.FixtureRequest) -> FormatName:
    return request.param


@pytest.fixture
def engine(toy: Any, fmt: FormatName) -> Iterator[Engine]:
    opened = open_engine(toy.stage, toy.files[fmt], fmt, threads=1)
    yield opened
    opened.close()


def _batch(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 17, (n, 4, 2)).astype(np.uint8)


@pytest.mark.parametrize("n", SIZES)
def test_outputs_are_those_of_the_stage_for_any_batch_size(toy: Any, engine: Engine, n: int) -> None:
    outputs = engine.run(_batch(n))
    assert set(outputs) == {"activation", "logits"}
    for name, expected in toy.expected(_batch(n)).items():
        assert outputs[name].shape == (n, 3)
        assert outputs[name].dtype == np.float32
        np.testing.assert_allclose(outputs[name], expected, atol=1e-5)


@pytest.mark.parametrize(("activation", "logits"), [("a_activation", "z_logits"), ("z_activation", "a_logits")])
def test_outputs_are_bound_by_name_whatever_their_order_in_the_file(
    make_toy: Callable[[str, str], Any], fmt: FormatName, activation: str, logits: str
) -> None:
    toy = make_toy(activation, logits)
    outputs = open_engine(toy.stage, toy.files[fmt], fmt, threads=1).run(_batch(5))
    expected = toy.expected(_batch(5))
    np.testing.assert_allclose(outputs[activation], expected["activation"], atol=1e-5)
    np.testing.assert_allclose(outputs[logits], expected["logits"], atol=1e-5)


def test_a_sample_gives_the_same_whatever_batch_it_is_in(engine: Engine) -> None:
    batch = _batch(33)
    together = engine.run(batch)
    for i in range(len(batch)):
        alone = engine.run(batch[i : i + 1])
        for name in together:
            np.testing.assert_allclose(alone[name][0], together[name][i], atol=1e-5)


@pytest.mark.parametrize("n", SIZES)
def test_engines_agree(toy: Any, n: int) -> None:
    one, two = (open_engine(toy.stage, toy.files[f], f, threads=2).run(_batch(n)) for f in FORMATS)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=1e-4)


@pytest.mark.parametrize("n", [1, 21])
def test_outputs_are_the_callers_own(engine: Engine, n: int) -> None:
    first = engine.run(_batch(n))
    kept = {name: array.copy() for name, array in first.items()}
    for array in engine.run(_batch(n) // 2).values():
        np.copyto(array, np.nan)
    again = engine.run(_batch(n))
    for name, array in kept.items():
        np.testing.assert_array_equal(first[name], array)
        np.testing.assert_array_equal(again[name], array)


def test_a_batch_need_not_be_contiguous(toy: Any, engine: Engine) -> None:
    wide = np.random.default_rng(0).integers(0, 17, (42, 4, 4)).astype(np.uint8)
    batch = wide[::2, :, ::2]
    np.testing.assert_allclose(engine.run(batch)["logits"], toy.expected(batch)["logits"], atol=1e-5)


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((2, 4, 3), np.uint8),
        np.zeros((2, 8), np.uint8),
        np.zeros((4, 2), np.uint8),
        np.zeros((2, 4, 2), np.float32),
        np.zeros((2, 4, 2), np.int8),
        np.zeros((0, 4, 2), np.uint8),
        np.uint8(1),
    ],
    ids=lambda b: f"{b.shape}-{b.dtype}",
)
def test_a_batch_of_another_shape_or_dtype_is_refused(engine: Engine, batch: np.ndarray) -> None:
    with pytest.raises(EngineError, match=r"stage edge: expected a batch \(n, 4, 2\) of uint8, n >= 1, got"):
        engine.run(batch)
    assert engine.run(_batch(2))["logits"].shape == (2, 3)


def test_closing_twice_is_harmless(engine: Engine) -> None:
    engine.run(_batch(2))
    engine.close()
    engine.close()


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_a_file_that_cannot_be_loaded_is_one_line(
    tmp_path: Path, toy: Any, fmt: FormatName, content: bytes | None
) -> None:
    path = tmp_path / toy.files[fmt].name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError, match=r"stage edge: .* cannot load") as caught:
        open_engine(toy.stage, path, fmt, threads=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"input": TensorSpec("pixels", (4, 2), "uint8")}, "expected inputs pixels .4, 2. uint8, the model has sample"),
        ({"input": TensorSpec("sample", (4, 2))}, "expected inputs sample .4, 2. float32"),
        ({"activation": TensorSpec("activation", (4,))}, "expected outputs activation .4,. float32"),
        ({"logits": TensorSpec("scores", (3,))}, "expected outputs .*scores"),
        ({"activation": None}, "expected outputs logits .3,. float32, the model has activation"),
    ],
)
def test_a_model_that_is_not_the_stage_is_refused(
    toy: Any, fmt: FormatName, changes: dict[str, Any], line: str
) -> None:
    with pytest.raises(EngineError, match=f"stage edge: {line}"):
        open_engine(replace(toy.stage, **changes), toy.files[fmt], fmt, threads=1)


def test_the_file_may_be_replaced_while_the_engine_runs(tmp_path: Path, toy: Any, fmt: FormatName) -> None:
    path = Path(shutil.copy(toy.files[fmt], tmp_path))
    engine = open_engine(toy.stage, path, fmt, threads=1)
    path.write_bytes(b"another model")
    np.testing.assert_allclose(engine.run(_batch(21))["logits"], toy.expected(_batch(21))["logits"], atol=1e-5)
