from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
import toy_bundle as toy

from branchy.core.cascade import StageFile
from branchy.errors import EngineError, MissingExtraError
from branchy.runner import format_choice, tier_loading
from branchy.runner.format_choice import load_quickest, time_in_turn
from branchy.runner.tier_loading import load_tier
from branchy.store.bundle import Bundle


def _changed(bundle: Bundle, stage: str, fmt: Any, **changes: Any) -> Bundle:
    """The bundle with other values in one stage's file, or its exit, of one format."""
    spec = bundle.spec
    old = spec.stage(stage)
    file = old.files[fmt]
    if "accuracy" in changes and file.exit is not None:
        changes = {"exit": replace(file.exit, **changes)}
    changed: dict[Any, StageFile] = {**old.files, fmt: replace(file, **changes)}
    stages = tuple(replace(s, files=changed) if s is old else s for s in spec.stages)
    return replace(bundle, manifest=replace(bundle.manifest, cascade=replace(spec, stages=stages)))


@pytest.fixture
def keras_is_quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    def times(calls: Any) -> dict[Any, float]:
        for call in calls.values():
            call()
        return {fmt: 0.1 if fmt == "keras" else 0.2 for fmt in calls}

    monkeypatch.setattr(format_choice, "time_in_turn", times)


@pytest.mark.usefixtures("keras_is_quicker")
def test_the_quickest_is_taken_and_the_log_says_so(toy_bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "branchy"):
        loaded = load_quickest(toy_bundle, ("edge", "hall", "cloud"))
    assert type(loaded.engines[toy_bundle.digest, "edge"]).__name__ == "KerasEngine"
    assert "format keras, the quickest here: keras 0.100 ms, litert 0.200 ms for a sample" in caplog.text


@pytest.mark.usefixtures("keras_is_quicker")
def test_what_is_less_accurate_than_float32_is_left_out(toy_bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    bundle = _changed(toy_bundle, "cloud", "keras", accuracy=0.48)
    with caplog.at_level(logging.INFO, "branchy"):
        loaded = load_quickest(bundle, ("hall", "cloud"))
    assert type(loaded.engines[bundle.digest, "cloud"]).__name__ == "LiteRTEngine"
    assert "without keras: cloud is 2.0 points less accurate than float32" in caplog.text


@pytest.mark.usefixtures("keras_is_quicker")
def test_without_tensorflow_a_keras_file_is_left_out_or_names_the_extra(
    toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = tier_loading.open_engine

    def no_keras(stage: Any, path: Any, engine: str, threads: int) -> Any:
        if engine == "keras":
            raise MissingExtraError("the keras engine", "train")
        return opened(stage, path, "litert", threads)

    monkeypatch.setattr(tier_loading, "open_engine", no_keras)
    assert type(load_quickest(toy_bundle, ("edge",)).engines[toy_bundle.digest, "edge"]).__name__ == "LiteRTEngine"
    file = toy_bundle.spec.stage("edge").files["keras"]
    stays = _changed(toy_bundle, "edge", "litert", path=file.path, sha256=file.sha256, size_bytes=file.size_bytes)
    for load in (load_tier, load_quickest):
        with pytest.raises(MissingExtraError, match=r"edge in format \w+, which is a Keras file.*\[train\]"):
            load(stays, ("edge",))


def test_golden_logits_may_be_off_by_what_the_format_was_off_at_training(
    toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, logits = toy_bundle.golden("edge")
    monkeypatch.setattr(Bundle, "golden", lambda self, name: (inputs, logits + 0.3))
    load_tier(_changed(toy_bundle, "edge", "litert", logits_off=0.2), ("edge",)).close()
    with pytest.raises(EngineError, match=r"logits that are off by 0\.3 .* use another format"):
        load_tier(toy_bundle, ("edge",))


def test_times_are_the_median_of_each_call_and_its_first_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(format_choice.time, "perf_counter", lambda: now[0])
    took = {"a": iter([9.0] + [0.002] * 999), "b": iter([9.0] + [0.001] * 999)}

    def call(name: str) -> None:
        now[0] += next(took[name])

    found = time_in_turn({name: lambda name=name: call(name) for name in took})
    assert found == {"a": pytest.approx(2.0), "b": pytest.approx(1.0)}


def test_a_toy_sample_goes_through_every_format(toy_bundle: Bundle) -> None:
    assert load_quickest(toy_bundle, ("full",)).model.labels == toy.LABELS
