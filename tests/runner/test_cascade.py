from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import toy_bundle as toy

from branchy.core.cascade import DType, FormatName, Uplink
from branchy.core.policies import probabilities
from branchy.errors import EngineError, UsageError
from branchy.runner.cascade import Cascade
from branchy.store.bundle import Bundle


@pytest.fixture(scope="module")
def cascade(toy_bundle: Bundle) -> Iterator[Cascade]:
    opened = Cascade(toy_bundle)
    yield opened
    opened.close()


def _sure(batch: np.ndarray, threshold: float = 0.8) -> np.ndarray:
    return probabilities(toy.edge_logits(batch), 2.0).max(axis=1) >= threshold


def test_each_sample_leaves_at_the_first_sure_exit_with_that_exits_answer(cascade: Cascade) -> None:
    batch = toy.samples(100)
    sure = _sure(batch)
    assert 0 < sure.sum() < len(batch)
    logits = np.where(sure[:, None], toy.edge_logits(batch), toy.cloud_logits(batch))
    for answer, left_early, expected in zip(cascade.predict(batch), sure, probabilities(logits, 2.0), strict=True):
        assert (answer.exit, answer.reason) == (("edge", "confident") if left_early else ("cloud", "final"))
        assert answer.tier == ("edge" if left_early else "hall")
        assert answer.status == "ok"
        assert answer.index == expected.argmax()
        assert answer.label == toy.LABELS[expected.argmax()]
        assert answer.confidence == pytest.approx(expected.max(), abs=1e-5)
        assert answer.probabilities == pytest.approx(tuple(expected), abs=1e-5)


def test_hops_list_every_tier_passed_with_its_own_prediction(cascade: Cascade) -> None:
    batch = toy.samples(50)
    for sample, answer in zip(batch, cascade.predict(batch), strict=True):
        first = answer.hops[0]
        assert (first.tier, first.exit) == ("edge", "edge")
        assert first.index == toy.edge_logits(sample[None])[0].argmax()
        assert [hop.tier for hop in answer.hops] == (["edge"] if answer.exit == "edge" else ["edge", "hall"])
        totals = [hop.total_ms for hop in answer.hops]
        assert totals == sorted(totals, reverse=True)
        assert all(0 < hop.compute_ms <= hop.total_ms for hop in answer.hops)


def test_a_stage_without_an_exit_shares_a_tier_with_the_stage_after_it(cascade: Cascade) -> None:
    assert cascade.tiers == ("edge", "hall")


def test_bytes_go_up_only_where_a_sample_goes_on(cascade: Cascade) -> None:
    for answer in cascade.predict(toy.samples(50)):
        assert answer.hops[-1].bytes_up == 0
        if answer.exit == "cloud":
            assert 6 * 4 < answer.hops[0].bytes_up < 1000


@pytest.mark.parametrize(("dtype", "close"), [("float32", 0.0), ("float16", 2e-3), ("uint8", 0.05)])
def test_activations_cross_the_cut_as_they_would_between_tiers(
    toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, dtype: DType, close: float
) -> None:
    cascade = Cascade(toy_bundle, thresholds=1.0)
    spec = cascade.spec
    edge = replace(spec.stages[0], uplink=Uplink("activation", dtype))
    cascade.stages = (edge, *cascade.stages[1:])
    seen: list[np.ndarray] = []
    monkeypatch.setitem(cascade._engines, "hall", _Spy(cascade._engines["hall"], seen))
    batch = toy.samples(20)
    cascade.predict(batch)
    sent = Cascade(toy_bundle)._engines["edge"].run(batch)["activation"]
    off = np.abs(np.concatenate(seen) - sent).max()
    assert off <= close * np.abs(sent).max()
    assert (off > 0) == (close > 0)


class _Spy:
    def __init__(self, engine: Any, seen: list[np.ndarray]) -> None:
        self.engine, self.seen = engine, seen

    def run(self, batch: np.ndarray) -> Any:
        self.seen.append(batch)
        return self.engine.run(batch)


@pytest.mark.parametrize("fmt", ["litert", "keras"])
def test_the_full_model_is_one_stage(toy_bundle: Bundle, fmt: FormatName) -> None:
    batch = toy.samples(40)
    answers = Cascade(toy_bundle, fmt, stage="full").predict(batch)
    assert [a.index for a in answers] == toy.cloud_logits(batch).argmax(axis=1).tolist()
    assert {(a.exit, a.tier, a.reason, len(a.hops)) for a in answers} == {("full", "full", "final", 1)}


def test_one_stage_gets_every_sample(toy_bundle: Bundle) -> None:
    batch = toy.samples(40)
    edge = Cascade(toy_bundle, stage="edge").predict(batch)
    assert [a.index for a in edge] == toy.edge_logits(batch).argmax(axis=1).tolist()
    cloud = Cascade(toy_bundle, stage="cloud").predict(batch)
    assert [a.index for a in cloud] == toy.cloud_logits(batch).argmax(axis=1).tolist()
    assert {a.exit for a in edge} == {"edge"}
    assert {a.exit for a in cloud} == {"cloud"}


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_answers_do_not_depend_on_the_batch_size(cascade: Cascade, batch_size: int) -> None:
    batch = toy.samples(60)
    whole = cascade.predict(batch)
    parts = cascade.predict(batch, batch_size)
    assert [(a.exit, a.index) for a in parts] == [(a.exit, a.index) for a in whole]
    assert [a.confidence for a in parts] == pytest.approx([a.confidence for a in whole], abs=1e-6)


def test_thresholds_move_samples_between_exits(toy_bundle: Bundle) -> None:
    batch = toy.samples(60)
    for thresholds in (0.6, {"edge": 0.6}):
        answers = Cascade(toy_bundle, thresholds=thresholds).predict(batch)
        assert [a.exit == "edge" for a in answers] == _sure(batch, 0.6).tolist()
    with pytest.raises(UsageError, match=r"stage edge: threshold for policy max_prob must be in 0\.\.1, got 2"):
        Cascade(toy_bundle, thresholds=2.0)


def test_no_samples_give_no_answers(cascade: Cascade) -> None:
    assert cascade.predict(toy.samples(0)) == []


def test_wrong_use_is_refused(toy_bundle: Bundle, cascade: Cascade) -> None:
    with pytest.raises(UsageError, match="no stage 'fog' in this bundle; it has edge, hall, cloud, full"):
        Cascade(toy_bundle, stage="fog")
    with pytest.raises(UsageError, match="must end in a stage with an exit; hall has none"):
        Cascade(toy_bundle, stage="hall")
    with pytest.raises(UsageError, match="with stage cloud every sample goes to one exit"):
        Cascade(toy_bundle, stage="cloud", thresholds=0.5)
    with pytest.raises(EngineError, match=r"stage edge: expected a batch \(n, 4, 4, 1\) of uint8"):
        cascade.predict(np.zeros((2, 4, 4, 1), np.float32))


def test_logits_that_are_not_finite_are_an_error(toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
            logits = np.full((len(batch), 3), np.nan, np.float32)
            return {"activation": np.zeros((len(batch), 6), np.float32), "logits": logits}

    cascade = Cascade(toy_bundle)
    monkeypatch.setitem(cascade._engines, "edge", Broken())
    with pytest.raises(EngineError, match="stage edge gave logits that are not finite"):
        cascade.predict(toy.samples(1))
