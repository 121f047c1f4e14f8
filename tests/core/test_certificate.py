from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from branchy.core.cascade import (
    CascadeSpec,
    ExitSettings,
    InputSpec,
    Source,
    StageFile,
    StageSpec,
    TensorSpec,
    Uplink,
    override_exits,
)
from branchy.core.certificate import Certificate, CertifiedThresholds, runs_as_certified
from branchy.errors import BundleError

NAMES = ("edge", "fog", "cloud")


def _stage(position: int) -> StageSpec:
    name, before = NAMES[position], NAMES[position - 1] if position else None
    after = NAMES[position + 1 :][:1]
    tensor = TensorSpec("activation" if before else "sample", (4,))
    settings = ExitSettings("max_prob", 0.8, temperature=1.0 + position)
    return StageSpec(
        name=name,
        inputs=(Source(before, tensor.name),),
        input=tensor,
        activation=TensorSpec("activation", (4,)) if after else None,
        logits=TensorSpec("logits", (3,)),
        successors=after,
        uplink=Uplink("activation", "uint8") if after else None,
        parameters=0,
        flops=0,
        files={"litert": StageFile(name, "", 0, settings), "keras": StageFile(name, "", 0, settings)},
    )


FULL = replace(_stage(0), name="full", successors=(), activation=None, uplink=None)
SPEC = CascadeSpec(
    "c", ("a", "b", "c"), InputSpec(TensorSpec("sample", (4,)), 0, 1), tuple(map(_stage, range(3))), FULL
)
CERTIFICATE = Certificate(
    loss="gap",
    guarantee="probability",
    method="binomial",
    alpha=0.01,
    delta=0.05,
    samples=5000,
    dataset="d",
    data_sha256="0" * 64,
    seed=0,
    formats=dict.fromkeys(NAMES, "litert"),
    uplinks={"edge": Uplink("activation", "uint8"), "fog": Uplink("activation", "uint8")},
    policy="max_prob",
    temperatures={"edge": 1.0, "fog": 2.0, "cloud": 3.0},
    cost="bytes",
    certified=tuple(CertifiedThresholds({"edge": t, "fog": t}, 0.0, 1.0) for t in (0.9, 0.8)),
)


def _with(thresholds: Mapping[str, float] | float) -> CascadeSpec:
    return override_exits(SPEC, "litert", policy=None, thresholds=thresholds)


def test_a_bundle_that_is_as_certified_fits() -> None:
    CERTIFICATE.check(SPEC)
    CERTIFICATE.check(_with({"edge": 0.9, "fog": 0.9}))
    CERTIFICATE.check(override_exits(SPEC, "keras", policy=None, thresholds=0.1))  # of which it says nothing


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"uplinks": {"edge": Uplink("activation", "float16")}}, "other uplinks than the bundle's"),
        ({"temperatures": {"edge": 1.0, "fog": 2.0, "cloud": 3.5}}, "other temperatures"),
        ({"policy": "margin"}, "other policies"),
        ({"certified": CERTIFICATE.certified[:1]}, "thresholds are not among the certified"),
        ({"formats": {"edge": "litert"}}, "expected a format of stage fog, found none"),
        ({"formats": dict.fromkeys(NAMES, "litert-int8")}, "has no format litert-int8"),
    ],
)
def test_one_about_something_else_does_not(changes: Mapping[str, Any], line: str) -> None:
    with pytest.raises(BundleError, match=line):
        replace(CERTIFICATE, **changes).check(SPEC)


def test_the_promise_says_what_is_certain_and_how_certain() -> None:
    assert CERTIFICATE.promise(SPEC) == (
        "promised with probability 95 %: accuracy is at most 1 % below the full model's; "
        "these thresholds, 2 of 2 from safe to cheap, by 5,000 samples (binomial)"
    )
    assert "these thresholds, 1 of 2 from safe to cheap" in CERTIFICATE.promise(_with({"edge": 0.9, "fog": 0.9}))
    expected = replace(CERTIFICATE, guarantee="expected", delta=None, method="conformal", loss="error")
    assert expected.promise(SPEC).startswith("promised on average: at most 1 % of the answers are wrong; ")


def test_thresholds_of_two_certified_vectors_are_not_certified_together() -> None:
    with pytest.raises(BundleError, match="thresholds are not among the certified"):
        CERTIFICATE.check(_with({"edge": 0.9, "fog": 0.8}))


def _runs(names: tuple[str, ...], *, fmt: str = "litert", spec: CascadeSpec = SPEC, made: Any = CERTIFICATE) -> bool:
    stages = spec.tier(names)
    exits = {stage.name: settings for stage in stages if (settings := stage.exit_settings("litert"))}
    return runs_as_certified(made, SPEC, stages, fmt, exits)


def test_a_tier_runs_as_certified_with_the_bundles_own_settings() -> None:
    assert _runs(("edge",))
    assert _runs(("fog", "cloud"))
    assert _runs(NAMES)
    assert not _runs(("edge",), made=None)
    assert not _runs(("edge",), fmt="keras")
    assert not _runs(("full",))
    other = replace(SPEC, stages=(replace(SPEC.stages[0], uplink=Uplink("activation", "float16")), *SPEC.stages[1:]))
    assert not _runs(("edge",), spec=other)


def test_another_certified_vector_will_do_where_one_tier_has_all_of_it() -> None:
    safer = _with({"edge": 0.9, "fog": 0.9})
    assert _runs(NAMES, spec=safer)
    assert _runs(("edge", "fog"), spec=safer)
    assert not _runs(("edge",), spec=safer)  # it cannot know of the fog
    assert not _runs(("fog", "cloud"), spec=safer)
    assert not _runs(NAMES, spec=_with({"edge": 0.9}))
    assert not _runs(NAMES, spec=_with(0.7))
    assert not _runs(NAMES, spec=override_exits(SPEC, "litert", policy="margin", thresholds=0.9))


def test_the_last_exit_answers_whatever_its_threshold_is() -> None:
    assert _runs(("cloud",), spec=_with({"cloud": 0.5}))
    assert _runs(NAMES, spec=_with({"cloud": 0.5}))
