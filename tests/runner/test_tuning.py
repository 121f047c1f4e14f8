from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_bundle as toy
from toy_data import toy_dataset

from branchy.core.guarantee import Losses, certify
from branchy.core.tuning import ExitOutputs
from branchy.datasets import Dataset
from branchy.errors import BundleError, TuningError, UsageError
from branchy.runner.cascade import Cascade
from branchy.runner.measuring import exit_costs
from branchy.runner.parts import tuning_parts
from branchy.runner.tier_loading import load_tier
from branchy.runner.tuning import TuneOptions, _too_much, cheapest, tune
from branchy.runner.tuning_summary import Tuned
from branchy.store.bundle import Bundle

N = 1200


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return toy_dataset(tmp_path_factory.mktemp("data") / "toy.npz", N)


@pytest.fixture
def tuned(toy_bundle: Bundle, dataset: Dataset, tmp_path: Path) -> Any:
    def call(**options: Any) -> Tuned:
        return tune(toy_bundle, dataset, TuneOptions(**{"out": tmp_path / "tuned", "unseen": True} | options))

    return call


# --- thresholds ------------------------------------------------------------------------------------------------------


def test_given_thresholds_are_written_and_nothing_is_promised(tuned: Any, toy_bundle: Bundle) -> None:
    found = tuned(thresholds={"edge": 0.625})
    edge = found.bundle.spec.stage("edge")
    assert edge.files["litert"].exit == replace(toy_bundle.spec.stage("edge").files["litert"].exit, threshold=0.625)
    assert edge.files["keras"].exit.threshold == 0.8  # another format's are its own
    assert found.bundle.manifest.certificate is None
    assert found.bundle.digest != toy_bundle.digest
    assert "nothing is promised" in found.text()


def test_a_share_is_met_on_other_samples(tuned: Any) -> None:
    assert tuned(target_share=(30, 70)).shares["edge"] == pytest.approx(0.3, abs=0.06)


def test_an_accuracy_is_reached_as_cheaply_as_can_be(tuned: Any) -> None:
    easy, hard = tuned(target_accuracy=70), tuned(target_accuracy=90, overwrite=True)
    right = hard.fresh.full == hard.fresh.labels
    assert right.mean() - hard.gap == pytest.approx(0.9, abs=0.05)
    assert easy.mean_cost < hard.mean_cost
    with pytest.raises(TuningError, match=r"no thresholds reach an accuracy of 99.9 % .* the best 9\d"):
        tuned(target_accuracy=99.9, overwrite=True)


def test_a_cost_is_kept_to(tuned: Any, toy_bundle: Bundle) -> None:
    edge, cloud = exit_costs(toy_bundle.spec, "flops")
    assert (edge, cloud) == (300, 600)
    found = tuned(target_cost=400, cost="flops")
    assert found.mean_cost == pytest.approx(400, abs=20)
    assert found.gap < tuned(target_cost=301, cost="flops", overwrite=True).gap
    with pytest.raises(TuningError, match=r"keep to a mean of 200 flops a sample .* the cheapest take 300"):
        tuned(target_cost=200, cost="flops", overwrite=True)


# --- certificates ----------------------------------------------------------------------------------------------------


def test_a_certificate_says_what_it_is_about(tuned: Any, toy_bundle: Bundle) -> None:
    found = tuned(alpha=0.05, delta=0.1)
    made = found.bundle.manifest.certificate
    assert (made.loss, made.guarantee, made.alpha, made.delta) == ("gap", "probability", 0.05, 0.1)
    assert made.samples == len(found.fresh) == pytest.approx(N * 35 / 60, abs=2)
    assert made.formats == {"edge": "litert", "hall": "litert", "cloud": "litert"}
    assert made.uplinks == {s.name: s.uplink for s in toy_bundle.spec.stages if s.uplink}
    assert made.temperatures == {"edge": 2.0, "cloud": 2.0}
    assert made.method in ("binomial", "betting")
    vectors = [each.thresholds["edge"] for each in made.certified]
    assert len(vectors) > 3
    assert vectors == sorted(vectors, reverse=True)
    assert found.bundle.spec.stage("edge").files["litert"].exit.threshold == vectors[-1]
    assert all(a.cost >= b.cost for a, b in zip(made.certified, made.certified[1:], strict=False))
    assert max(each.loss for each in made.certified) < 0.05
    assert "promised with probability 90 %: accuracy is at most 5 % below the full model's" in found.text()


def test_a_looser_promise_lets_more_leave(tuned: Any) -> None:
    shares = [tuned(alpha=alpha, overwrite=True).shares["edge"] for alpha in (0.02, 0.1, 0.2)]
    assert shares == sorted(shares)
    assert shares[0] < shares[-1]
    assert (
        tuned(alpha=0.05, guarantee="expected", overwrite=True).shares["edge"]
        > tuned(alpha=0.05, overwrite=True).shares["edge"]
    )


def test_a_disagreement_is_certified_without_a_look_at_the_labels(
    tuned: Any, toy_bundle: Bundle, dataset: Dataset, tmp_path: Path
) -> None:
    known = tuned(alpha=0.1, loss="disagreement").bundle.manifest.certificate
    pool = replace(dataset.pool, labels=np.zeros_like(dataset.pool.labels))
    blind = tune(
        toy_bundle,
        replace(dataset, pool=pool),
        TuneOptions(out=tmp_path / "blind", unseen=True, alpha=0.1, loss="disagreement"),
    ).bundle.manifest.certificate
    assert known is not None
    assert blind is not None
    assert blind.certified == known.certified
    assert blind.data_sha256 != known.data_sha256  # which covers the labels


def test_samples_that_are_sorted_by_class_are_bet_on_in_an_order_of_the_seeds(
    tuned: Any, toy_bundle: Bundle, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Betting learns from what came before: one class after the other would be no independent samples."""
    parts = tuning_parts(toy_bundle, dataset, unseen=True, seed=0)
    in_order = parts[1].labels
    assert (np.diff(in_order) >= 0).all()
    monkeypatch.setattr("branchy.runner.tuning.tuning_parts", lambda *a, **k: parts)
    seen: list[Losses] = []

    def certifying(sequence: Iterable[Losses], *args: Any) -> int:
        seen.append(next(iter(sequence)))
        return 1

    monkeypatch.setattr("branchy.runner.tuning.certify", certifying)
    options = {"thresholds": 0.0, "alpha": 0.5, "loss": "error", "bound": "betting", "overwrite": True}
    first, again, other = (tuned(seed=seed, **options).fresh for seed in (0, 0, 1))
    for fresh, losses in zip((first, again, other), seen, strict=True):
        assert (losses == fresh.losses("error")[0]).all()  # what is certified on is what is measured on
        assert sorted(fresh.labels) == in_order.tolist()
        assert np.count_nonzero(np.diff(fresh.labels)) > 50  # changes of class; in order there are 2
    assert (first.labels == again.labels).all()
    assert (first.labels != other.labels).any()


def test_given_thresholds_can_be_certified_or_are_refused(tuned: Any) -> None:
    made = tuned(thresholds=0.99, alpha=0.1).bundle.manifest.certificate
    assert [each.thresholds for each in made.certified] == [{"edge": 0.99}]
    with pytest.raises(TuningError, match="cannot promise an accuracy gap to the full model of at most 1 %"):
        tuned(thresholds=0.0, alpha=0.01, overwrite=True)


@pytest.mark.parametrize(
    ("options", "have", "least"),
    [({}, 900, 598), ({"bound": "betting"}, 1200, 797), ({"guarantee": "expected"}, 300, 199)],
)
def test_too_few_samples_say_how_many_it_takes(
    tmp_path: Path, toy_bundle: Bundle, dataset: Dataset, options: Any, have: int, least: int
) -> None:
    """By the test that was made; and so many in all are really divided into so many to certify with."""
    few = replace(dataset, pool=dataset.pool.take(np.arange(have)))
    with pytest.raises(TuningError, match=f"it takes {least} to certify with where not one is lost") as found:
        tune(toy_bundle, few, TuneOptions(out=tmp_path / "x", unseen=True, alpha=0.005, **options))
    assert list(tmp_path.iterdir()) == []
    (in_all,) = re.findall(r"give ([\d,]+) or more that were not trained on, with --unseen", str(found.value))
    more = replace(dataset, pool=dataset.pool.take(np.arange(int(in_all.replace(",", ""))) % N))
    assert len(tuning_parts(toy_bundle, more, unseen=True, seed=0)[1]) >= least


def _one_that_loses(lost: int, won: int, n: int) -> Losses:
    losses = np.zeros(n, np.int8)
    losses[:lost], losses[lost : lost + won] = 1, -1
    return np.random.default_rng(0).permutation(losses)


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (7, 0), (14, 10)])
def test_what_betting_takes_is_more_than_there_are_and_enough(lost: int, won: int) -> None:
    safest = _one_that_loses(lost, won, 700)
    assert certify([safest], 0.012, 0.001, "betting") == 0
    said = _too_much(safest, "betting", TuneOptions(alpha=0.012, delta=0.001), 0.012)
    *_, takes = re.findall(r"(?:takes|about) ([\d,]+)", said)
    enough = int(takes.replace(",", ""))
    assert enough > 700
    assert certify([np.resize(safest, enough)], 0.012, 0.001, "betting") == 1


def test_what_is_won_is_no_help_with_the_binomial_bound() -> None:
    """1.2 % lost and 1.0 % won is a gap of 0.2 %, of which this bound sees only what is lost."""
    safest, options = _one_that_loses(18, 15, 1500), TuneOptions(alpha=0.01)
    said = _too_much(safest, "binomial", options, 0.01)
    assert "one of 1.20 % on 1,500 samples; no number of such samples is enough: raise --alpha, or" in said
    assert "--bound betting" in said
    assert "on 1,500 samples, and that takes about 1,5" in _too_much(safest, "betting", options, 0.01)
    hopeless = _too_much(_one_that_loses(18, 0, 1500), "binomial", options, 0.01)
    assert hopeless.endswith("no number of such samples is enough: raise --alpha")
    nearly = _too_much(_one_that_loses(18, 0, 1500), "binomial", options, 0.01200001)
    assert nearly.endswith("not even 2,000,000 such samples are enough: raise --alpha")


def test_a_loss_that_no_number_of_samples_makes_up_for_says_so(tuned: Any, tmp_path: Path) -> None:
    with pytest.raises(TuningError, match=r"an error of at most 1 % .* safest thresholds have one of .* raise --alpha"):
        tuned(alpha=0.01, loss="error")
    assert list(tmp_path.iterdir()) == []


# --- what is certified at run time -----------------------------------------------------------------------------------


def test_only_the_variant_that_was_certified_answers_so(tuned: Any, toy_bundle: Bundle) -> None:
    bundle, batch = tuned(alpha=0.1).bundle, toy.samples(40, seed=1)
    answers = Cascade(bundle).predict(batch)
    assert {answer.reason for answer in answers} == {"confident", "final"}
    assert all(answer.certified for answer in answers)
    changed: list[dict[str, Any]] = [
        {"fmt": "keras"},
        {"thresholds": 0.5},
        {"policy": "margin", "thresholds": 0.5},
        {"stage": "full"},
        {"stage": "edge"},
    ]
    for options in changed:
        assert not any(answer.certified for answer in Cascade(bundle, **options).predict(batch)), options
    assert not any(answer.certified for answer in Cascade(toy_bundle).predict(batch))


def test_a_tier_with_the_only_early_exit_may_run_any_certified_threshold(tuned: Any) -> None:
    bundle = tuned(alpha=0.1).bundle
    for each in (bundle.manifest.certificate.certified[0], bundle.manifest.certificate.certified[-2]):
        assert load_tier(bundle, ("edge",), thresholds=each.thresholds).model.certified
        assert Cascade(bundle, thresholds=each.thresholds["edge"]).certified
    between = np.mean([each.thresholds["edge"] for each in bundle.manifest.certificate.certified[:2]])
    assert not load_tier(bundle, ("edge",), thresholds=float(between)).model.certified


def test_each_tier_knows_of_its_own_part(tuned: Any) -> None:
    bundle = tuned(alpha=0.1).bundle
    assert load_tier(bundle, ("edge",)).model.certified
    assert load_tier(bundle, ("hall", "cloud")).model.certified
    assert not load_tier(bundle, ("edge",), thresholds=0.5).model.certified
    assert not load_tier(bundle, ("full",)).model.certified


# --- wrong use -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "expected one of --target-share, .*; got none"),
        ({"alpha": 0.1, "target_cost": 3.0}, "got --target-cost and --alpha"),
        ({"thresholds": 0.5, "target_accuracy": 90.0}, "got --target-accuracy and --threshold"),
        ({"alpha": 1.5}, "--alpha must be between 0 and 1, got 1.5"),
        ({"bound": "betting", "target_cost": 3.0}, "--bound is about what --alpha promises: leave it out"),
        ({"delta": 0.05, "thresholds": 0.5}, "--delta is about what --alpha promises: leave it out"),
        ({"loss": "error", "target_share": (50.0, 50.0)}, "--loss is about what --alpha promises: leave it out"),
        ({"guarantee": "expected", "target_accuracy": 97.0}, "--guarantee is about what --alpha promises"),
        (
            {"bound": "betting", "alpha": 0.1, "guarantee": "expected"},
            "--bound means nothing with --guarantee expected",
        ),
        ({"delta": 0.01, "alpha": 0.1, "guarantee": "expected"}, "--delta means nothing with --guarantee expected"),
        ({"alpha": 0.1, "certified": 2}, "--certified takes no DATASET"),
        ({"alpha": 0.1, "delta": 0.0}, "--delta must be between 0 and 1, got 0"),
        ({"target_accuracy": 101.0}, "--target-accuracy must be between 0 and 100, got 101"),
        ({"target_share": (50.0, 20.0)}, "--target-share must be .* for each exit \\(edge, cloud\\), .* got 50,20"),
        ({"thresholds": {"fog": 0.5}}, "no stage 'fog'"),
        ({"thresholds": 1.5}, "threshold for policy max_prob must be in 0..1"),
        ({"alpha": 0.1, "unseen": False}, "pass --unseen"),
    ],
)
def test_wrong_use_is_found_before_the_work(
    tuned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], line: str
) -> None:
    monkeypatch.setattr("branchy.runner.tuning.measure", lambda *a: pytest.fail("the work was begun"))
    with pytest.raises(UsageError, match=line):
        tuned(**options)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_taken_is_found_before_the_work(
    toy_bundle: Bundle, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("branchy.runner.tuning.measure", lambda *a: pytest.fail("the work was begun"))
    with pytest.raises(UsageError, match="is there already; name another place, or pass --overwrite"):
        tune(toy_bundle, dataset, TuneOptions(out=toy_bundle.path, alpha=0.1, unseen=True))


def test_of_certified_vectors_the_cheapest_is_taken_wherever_it_stands() -> None:
    scores = np.array([[0.9, 0.6, 0.2, 0.2], [0.9, 0.9, 0.7, 0.3], [1.0, 1.0, 1.0, 1.0]])
    outputs = ExitOutputs(
        ("a", "b", "c"), "max_prob", scores, np.zeros((3, 4), int), np.zeros(4, int), np.zeros(4, int), 3
    )
    safest, least, last = (0.95, 0.95, 0.0), (0.5, 0.5, 0.0), (0.8, 0.6, 0.0)
    assert cheapest(outputs, [safest, least, last], (1.0, 2.0, 5.0)) == least
    assert cheapest(outputs, [safest, last, (0.85, 0.65, 0.0)], (1.0, 2.0, 5.0)) == last, "the safest of those alike"


def test_a_certified_bundle_whose_thresholds_are_changed_is_not_whole(tuned: Any) -> None:
    bundle = tuned(alpha=0.1).bundle
    manifest = bundle.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"temperature": 2.0', '"temperature": 2.5', 1))
    with pytest.raises(BundleError):
        Bundle.load(bundle.path)
