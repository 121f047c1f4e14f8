from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchy.core.cascade import (
    CascadeSpec,
    ExitSettings,
    FormatName,
    InputSpec,
    PolicyName,
    Source,
    StageFile,
    StageSpec,
    TensorSpec,
    Uplink,
    override_exits,
    parse_formats,
    parse_thresholds,
)
from branchy.errors import BundleError, UsageError

FORMATS: tuple[FormatName, ...] = ("keras", "litert")
SAMPLE = TensorSpec("sample", (4,), "uint8")
ACTIVATION = TensorSpec("activation", (8,))
LOGITS = TensorSpec("logits", (3,))


def _stage(name: str, source: str | None, successor: str | None, *, exits: bool = True) -> StageSpec:
    settings = ExitSettings("max_prob", 0.8, 1.5, accuracy=0.75, samples=4) if exits else None
    return StageSpec(
        name=name,
        inputs=(Source(source, "activation" if source else "sample"),),
        input=ACTIVATION if source else SAMPLE,
        activation=ACTIVATION if successor else None,
        logits=LOGITS if exits else None,
        successors=(successor,) if successor else (),
        uplink=Uplink() if successor else None,
        parameters=1,
        flops=1,
        files={"keras": StageFile(f"{name}.keras", "", 0, settings), "litert": StageFile(name, "", 0, settings)},
    )


SPEC = CascadeSpec(
    "toy",
    ("a", "b", "c"),
    InputSpec(SAMPLE, 0, 16),
    (
        _stage("edge", None, "gate"),
        _stage("gate", "edge", "fog", exits=False),
        _stage("fog", "gate", "cloud"),
        _stage("cloud", "fog", None),
    ),
    _stage("full", None, None),
)


def _exit(spec: CascadeSpec, stage: str, fmt: FormatName = "litert") -> ExitSettings:
    found = spec.stage(stage).exit_settings(fmt)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        (["0.8"], 0.8),
        (["edge=0.9,fog=0.5"], {"edge": 0.9, "fog": 0.5}),
        (["edge=0.9", " fog=1e-1 "], {"edge": 0.9, "fog": 0.1}),
        (["a=b=0.5"], {"a=b": 0.5}),
    ],
)
def test_thresholds_are_one_number_or_one_a_stage(values: list[str], expected: object) -> None:
    assert parse_thresholds(values) == expected


@pytest.mark.parametrize(
    "values", [["high"], [""], ["0.8,0.9"], ["edge=0.9,0.8"], ["=0.5"], ["edge="], ["e=1", "e=1"], ["nan"]]
)
def test_thresholds_of_neither_form_are_refused(values: list[str]) -> None:
    with pytest.raises(UsageError, match="expected one number, or STAGE=NUMBER once a stage, got"):
        parse_thresholds(values)


def test_nothing_given_changes_nothing() -> None:
    assert override_exits(SPEC, None, policy=None, thresholds=None) == SPEC
    assert override_exits(SPEC, "litert", policy="max_prob", thresholds={}) == SPEC


def test_one_threshold_goes_to_every_exit_and_keeps_temperature_and_accuracy() -> None:
    changed = override_exits(SPEC, None, policy=None, thresholds=0.25)
    for name in ("edge", "fog", "cloud"):
        for fmt in FORMATS:
            assert _exit(changed, name, fmt) == replace(_exit(SPEC, name), threshold=0.25)
    assert changed.stage("gate") == SPEC.stage("gate")
    assert changed.full == SPEC.full


def test_only_the_named_stage_and_format_change() -> None:
    changed = override_exits(SPEC, "litert", policy=None, thresholds={"fog": 0.25})
    assert _exit(changed, "fog").threshold == 0.25
    assert _exit(changed, "fog", "keras").threshold == 0.8
    assert _exit(changed, "edge").threshold == 0.8


def test_a_policy_needs_a_threshold_of_its_own_but_for_the_last_stage() -> None:
    with pytest.raises(UsageError, match=r"stage fog: its threshold 0\.8 was set for policy max_prob; give one for"):
        override_exits(SPEC, None, policy="entropy", thresholds={"edge": 0.3})
    changed = override_exits(SPEC, None, policy="entropy", thresholds={"edge": 0.3, "fog": 1.05})
    assert (_exit(changed, "fog").policy, _exit(changed, "fog").threshold) == ("entropy", 1.05)
    assert _exit(changed, "cloud") == _exit(SPEC, "cloud")


@given(st.floats(allow_nan=True), st.sampled_from(["max_prob", "margin", "entropy"]))
def test_a_threshold_is_taken_exactly_when_it_is_in_its_policys_range(threshold: float, policy: PolicyName) -> None:
    high = math.log(3) if policy == "entropy" else 1.0
    if 0 <= threshold <= high:
        changed = override_exits(SPEC, None, policy=policy, thresholds=threshold)
        assert _exit(changed, "edge").threshold == threshold
    else:
        with pytest.raises(UsageError, match=f"stage edge: threshold for policy {policy} must be in 0..{high:.4g}"):
            override_exits(SPEC, None, policy=policy, thresholds=threshold)


@pytest.mark.parametrize(
    ("thresholds", "line"),
    [
        ({"attic": 0.5}, "no stage 'attic' in this bundle; it has edge, gate, fog, cloud, full"),
        ({"gate": 0.5}, "threshold of stage gate: only a stage with an early exit has one"),
        ({"full": 0.5}, "threshold of stage full: only a stage with an early exit has one"),
    ],
)
def test_a_threshold_of_a_stage_that_has_none_is_refused(thresholds: Mapping[str, float], line: str) -> None:
    with pytest.raises(UsageError, match=line):
        override_exits(SPEC, None, policy=None, thresholds=thresholds)


@pytest.mark.parametrize(
    ("stages", "line"),
    [
        ((), "stage names must be unique, at least one"),
        ((_stage("full", None, None),), "not 'full'"),
        ((_stage("edge", None, "edge"), _stage("edge", "edge", None)), "stage names must be unique"),
        ((_stage("edge", None, None), _stage("fog", "edge", None)), "stage edge: expected successors"),
        (
            (_stage("edge", None, "fog"), _stage("fog", "edge", None, exits=False)),
            "the last stage fog must have an exit",
        ),
        ((replace(_stage("edge", None, None), inputs=()),), "stage edge: one input"),
    ],
)
def test_a_cascade_is_a_chain_of_named_stages(stages: tuple[StageSpec, ...], line: str) -> None:
    with pytest.raises(BundleError, match=line):
        replace(SPEC, stages=stages)


def test_a_tier_runs_consecutive_stages_that_end_in_an_exit() -> None:
    assert [s.name for s in SPEC.tier(("edge", "gate", "fog"))] == ["edge", "gate", "fog"]
    assert SPEC.tier(("full",)) == (SPEC.full,)
    for names, line in [
        ((), "at least one stage"),
        (("edge", "fog"), "fog does not follow edge"),
        (("edge", "gate"), "must end in a stage with an exit; gate has none"),
        (("attic",), "no stage 'attic'"),
    ]:
        with pytest.raises(UsageError, match=line):
            SPEC.tier(names)


def test_formats_are_named_once_each_with_commas_between() -> None:
    assert parse_formats("litert, litert-int8") == ("litert", "litert-int8")
    for wrong in ("", "tflite", "litert,litert"):
        with pytest.raises(UsageError, match=r"--formats: expected some of .*litert-float16.*, each once, got"):
            parse_formats(wrong)


def _samples_up(stage: StageSpec) -> StageSpec:
    return replace(stage, activation=stage.input, uplink=Uplink("sample", "uint8"))


def _takes_sample(stage: StageSpec) -> StageSpec:
    return replace(stage, inputs=(Source(None, "sample"),), input=SAMPLE)


def test_a_stage_may_send_its_sample_up_to_one_that_takes_it() -> None:
    edge, gate, fog, cloud = SPEC.stages
    stages = (_samples_up(edge), _takes_sample(gate), fog, cloud)
    assert replace(SPEC, stages=stages).stages == stages


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        (lambda edge, gate: (_samples_up(edge), gate), "stage gate: expected that it takes the sample"),
        (lambda edge, gate: (edge, _takes_sample(gate)), "stage gate: expected that it takes what edge makes of it"),
        (
            lambda edge, gate: (replace(edge, uplink=Uplink("sample")), _takes_sample(gate)),
            "stage edge sends the sample up, so expected that it takes it, and as it came",
        ),
        (
            lambda edge, gate: (edge, replace(gate, activation=ACTIVATION, uplink=Uplink("sample"))),
            "stage gate sends the sample up, so expected that it takes it",
        ),
    ],
)
def test_a_sample_goes_up_from_where_it_is_to_where_it_is_taken(stages: Any, says: str) -> None:
    edge, gate, *others = SPEC.stages
    with pytest.raises(BundleError, match=says):
        replace(SPEC, stages=(*stages(edge, gate), *others))


def test_what_goes_to_the_successor_is_the_batch_itself_where_the_sample_is_sent() -> None:
    edge = SPEC.stages[0]
    batch, outputs = np.zeros((2, 4), np.uint8), {"logits": np.ones((2, 3), np.float32)}
    assert edge.completed(batch, outputs) is outputs
    assert edge.outputs == (ACTIVATION, LOGITS)
    completed = _samples_up(edge).completed(batch, outputs)
    assert completed["sample"] is batch
    assert completed["logits"] is outputs["logits"]
    assert _samples_up(edge).outputs == (LOGITS,)
