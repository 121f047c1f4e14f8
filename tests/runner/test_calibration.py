from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from branchy.core.cascade import Array, DType, FormatName, Source, StageSpec, TensorSpec, Uplink
from branchy.core.wire import decode_tensors, encode_tensors
from branchy.datasets import Part
from branchy.errors import TrainingError
from branchy.runner.calibration import Run, Thresholds, calibrate, check_format, walk

CLASSES = 3


class Rows:
    """Samples that are rows of logits themselves."""

    def __init__(self, rows: Array) -> None:
        self.rows = rows

    def read(self, index: int) -> Array:
        return self.rows[index]


def _stage(name: str, *, behind: str | None, after: str | None, dtype: DType, exit_: bool = True) -> StageSpec:
    tensor = TensorSpec("activation" if behind else "sample", (CLASSES,))
    return StageSpec(
        name=name,
        inputs=(Source(behind, tensor.name),),
        input=tensor,
        activation=TensorSpec("activation", (CLASSES,)) if after else None,
        logits=TensorSpec("logits", (CLASSES,)) if exit_ else None,
        successors=(after,) if after else (),
        uplink=Uplink("activation", dtype) if after else None,
        parameters=0,
        flops=0,
    )


def _chain(dtype: DType = "float32", near_exit: bool = True) -> list[StageSpec]:
    return [
        _stage("near", behind=None, after="far", dtype=dtype, exit_=near_exit),
        _stage("far", behind="near", after=None, dtype=dtype),
    ]


def _echo(factor: float) -> Run:
    """A stage whose activation is its input and whose logits are a multiple of it."""
    return lambda batch: {"activation": batch, "logits": factor * np.asarray(batch)}


RUNS: Mapping[str, Run] = {"near": _echo(3.0), "far": _echo(1.0)}


def _part(seed: int, n: int = 2000) -> Part:
    """Rows that are the logits of their labels' own distribution (true temperature 1)."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(scale=2, size=(n, CLASSES)).astype(np.float32)
    noise = rng.gumbel(size=rows.shape)
    return Part(Rows(rows), np.arange(n), (rows + noise).argmax(axis=1))


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_the_next_stage_gets_what_arrives_over_the_wire(dtype: DType) -> None:
    samples = np.random.default_rng(0).normal(size=(4, CLASSES)).astype(np.float32)
    near, far = walk(_chain(dtype), RUNS, samples)
    bodies = [encode_tensors({"activation": row}, dtype) for row in samples]
    arrived = np.stack([decode_tensors(body)["activation"].astype(np.float32) for body in bodies])
    assert np.array_equal(far.inputs, arrived)
    assert (near.body_bytes, far.body_bytes) == (len(bodies[0]), 0)
    assert np.array_equal(far.inputs, samples) == (dtype == "float32")


def test_nothing_is_sent_after_a_stage_without_an_exit() -> None:
    samples = np.random.default_rng(0).normal(size=(4, CLASSES)).astype(np.float32)
    near, far = walk(_chain("uint8", near_exit=False), RUNS, samples)
    assert near.body_bytes == 0
    assert np.array_equal(far.inputs, samples)


def test_an_activation_that_the_uplink_cannot_carry_is_a_failure_that_says_what_to_do() -> None:
    samples = np.full((1, CLASSES), 1e6, dtype=np.float32)
    with pytest.raises(TrainingError, match=r"stage near: .* as float16.*--uplink-dtype float32"):
        list(walk(_chain("float16"), RUNS, samples))


def test_each_exit_gets_its_own_temperature_and_accuracy() -> None:
    temperature, tune = _part(1), _part(2)
    found = calibrate(_chain(), RUNS, temperature, tune, Thresholds("max_prob", 0.8), "test")
    exits = found.exits
    assert exits["near"].temperature == pytest.approx(3 * exits["far"].temperature, rel=0.05)
    assert exits["far"].temperature == pytest.approx(1.0, rel=0.1)
    both = np.concatenate([temperature.samples.rows.argmax(axis=1), tune.samples.rows.argmax(axis=1)])
    right = both == np.concatenate([temperature.labels, tune.labels])
    assert exits["near"].accuracy == pytest.approx(right.mean())
    assert exits["near"].samples == 4000
    assert sum(found.shares.values()) == pytest.approx(1.0)


def test_temperatures_come_from_their_own_part_and_thresholds_from_the_other() -> None:
    temperature, tune = _part(1), _part(2)
    overconfident = Part(Rows(5 * temperature.samples.rows), temperature.indices, temperature.labels)
    wanted = Thresholds("max_prob", 0.8, (0.3, 0.7))
    found = calibrate(_chain(), RUNS, overconfident, tune, wanted, "test")
    assert found.exits["far"].temperature == pytest.approx(5.0, rel=0.1)
    assert found.shares["near"] == pytest.approx(0.3, abs=0.001)


def test_a_temperature_takes_away_most_of_an_overconfident_exits_calibration_error() -> None:
    found = calibrate(_chain(), RUNS, _part(1), _part(2), Thresholds("max_prob", 0.8), "test").calibration
    before, after = found["near"]  # whose logits are three times too large
    assert before.ece_mass > 0.1
    assert after.ece_mass < before.ece_mass / 3
    assert [each.ece_mass for each in found["far"]] == pytest.approx([after.ece_mass] * 2, abs=0.01)


def test_thresholds_are_those_given_and_the_last_exit_always_answers() -> None:
    exits = calibrate(_chain(), RUNS, _part(1), _part(2), Thresholds("margin", {"near": 0.3}), "test").exits
    assert [(e.policy, e.threshold) for e in exits.values()] == [("margin", 0.3), ("margin", 0.0)]


@pytest.mark.parametrize("policy", ["max_prob", "margin", "entropy"])
def test_target_shares_are_reached_on_the_tune_part(policy: str) -> None:
    wanted = Thresholds(policy, 0.8, (0.3, 0.7))
    found = calibrate(_chain(), RUNS, _part(1), _part(2), wanted, "test")
    assert found.shares == {"near": pytest.approx(0.3, abs=0.001), "far": pytest.approx(0.7, abs=0.001)}
    found.exits["near"].check(CLASSES)


def test_a_format_that_does_what_keras_does_passes() -> None:
    stage, rows = _chain()[1], np.ones((2, CLASSES), np.float32)
    check_format(stage, lambda batch: {"logits": batch + 1e-6}, rows, {"logits": rows}, "litert")


@pytest.mark.parametrize("wrong", [1.001, np.nan, np.inf])
def test_a_format_that_does_something_else_is_a_failure(wrong: float) -> None:
    stage, rows = _chain()[1], np.ones((2, CLASSES), np.float32)
    with pytest.raises(TrainingError, match=r"stage far: its logits in format litert is off by"):
        check_format(stage, lambda batch: {"logits": batch * wrong}, rows, {"logits": rows}, "litert")


def test_a_sample_that_is_sent_up_comes_as_it_was() -> None:
    near, far = _chain("float32")
    sample = TensorSpec("sample", (CLASSES,), "uint8")
    near = replace(near, input=sample, activation=sample, uplink=Uplink("sample", "uint8"))
    far = replace(far, inputs=near.inputs, input=sample)
    samples = np.random.default_rng(0).integers(0, 256, (4, CLASSES)).astype(np.uint8)
    runs = {"near": lambda batch: near.completed(batch, {"logits": np.float32(batch)}), "far": _echo(1.0)}
    first, second = walk([near, far], runs, samples)
    assert second.inputs.dtype == np.uint8
    assert np.array_equal(second.inputs, samples)
    assert first.body_bytes == len(encode_tensors({"sample": samples[0]}))


@pytest.mark.parametrize(("fmt", "passes"), [("litert", False), ("litert-float16", True), ("litert-int8", True)])
def test_some_codes_may_be_rounded_otherwise_in_a_format_of_fewer_bits(fmt: FormatName, passes: bool) -> None:
    stage, codes = _chain()[0], np.zeros((2, 10), np.uint8)
    other = codes.copy()
    other[0, :3] = 255
    if passes:
        check_format(stage, lambda batch: {"activation": other}, codes, {"activation": codes}, fmt)
        return
    with pytest.raises(TrainingError, match=r"stage near: 15\.0% of the codes that it sends in format litert are not"):
        check_format(stage, lambda batch: {"activation": other}, codes, {"activation": codes}, fmt)
