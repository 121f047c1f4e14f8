from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy_bundle as toy

from branchy.core.payoff import Site, TierFigures
from branchy.datasets import Dataset, load
from branchy.errors import UsageError
from branchy.runner.analysis import Analysis, analyse, prepare_folder, site_of
from branchy.runner.evaluation import Evaluation, evaluate
from branchy.runner.stage_times import Timed
from branchy.store.bundle import Bundle

N = 300
SITE = Site.of(2, [8.0], [10.0], [5.0])
TIMED = Timed((TierFigures("edge", 1.0, 1000), TierFigures("cloud", 2.0, 0)), TierFigures("full", 3.0, 5000))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("data") / "toy.npz"
    toy.write_dataset(path, N)
    return load(str(path))


@pytest.fixture(scope="module")
def analysis(toy_bundle: Bundle, dataset: Dataset) -> Analysis:
    """With times that are known beforehand."""
    return replace(analyse(toy_bundle, dataset, SITE), timed=TIMED)


@pytest.fixture(scope="module")
def evaluation(toy_bundle: Bundle, dataset: Dataset) -> Evaluation:
    return evaluate(toy_bundle, dataset)


def test_it_says_the_same_of_the_cascade_as_the_tiers_answers_do(analysis: Analysis, evaluation: Evaluation) -> None:
    *exits, cascade, full = analysis.views()
    assert [int(view.leaves.sum()) for view in exits if view.leaves is not None] == [t.left for t in evaluation.exits]
    assert int(cascade.right.sum()) == evaluation.correct
    assert full.right.mean() == 0.9
    assert [view.temperature for view in (*exits, full)] == [2.0, 2.0, 2.0]


def test_the_cascade_and_what_it_is_held_against_cost_what_the_model_says(analysis: Analysis) -> None:
    share = float(analysis.views()[0].leaves.mean())
    cascade, (edge, sent, spot) = analysis.cascade(), analysis.alternatives()
    # the edge takes 5 x 1 ms; the cut 10 ms and 1,000 bytes at 8 Mbit/s; the cloud 2 ms
    assert cascade.mean_ms == pytest.approx(5 + (1 - share) * (10 + 1 + 2))
    assert cascade.mean_bytes == pytest.approx((1 - share) * 1000)
    assert (edge.mean_ms, edge.mean_bytes) == (5.0, 0.0)
    assert (sent.mean_ms, sent.mean_bytes) == (10 + 5 + 3, 5000)
    assert (spot.mean_ms, spot.mean_bytes) == (15.0, 0.0)
    assert sent.accuracy == spot.accuracy == 0.9


def test_a_sweep_goes_from_cheap_to_right_and_holds_the_edge_alone(analysis: Analysis) -> None:
    for unit in ("FLOPs", "ms", "bytes"):
        rows = analysis.sweep(unit)
        assert [row.means[unit] for row in rows] == sorted(row.means[unit] for row in rows)
        assert [row.right for row in rows] == sorted(row.right for row in rows)
        assert len(rows) > 5
        own = analysis._row(analysis.thresholds)
        best = max(row.right for row in rows if row.means[unit] <= own.means[unit])
        assert best >= own.right - 2  # the grid may just miss a single vector


def test_what_is_said_is_short_and_ends_in_a_verdict(analysis: Analysis) -> None:
    lines = analysis.text().splitlines()
    assert len(lines) < 40
    assert lines[-1].startswith("It ")
    assert "does it pay? Uplink 8 Mbit/s, round trip 10 ms, computers 5, 1 times slower" in lines
    assert any(line.startswith("the full model at the cloud is as quick as the cascade from ") for line in lines)


def test_classes_without_test_samples_and_small_test_sets_are_said(toy_bundle: Bundle, dataset: Dataset) -> None:
    few = dataset.test.take(np.flatnonzero(dataset.test.labels != 2)[:50])
    text = analyse(toy_bundle, replace(dataset, test=few), SITE).text()
    assert "no test samples of 1 of 3 classes; nothing is known of: cat" in text
    assert "only 50 test samples" in text


def test_files_say_what_the_analysis_does(analysis: Analysis, tmp_path: Path) -> None:
    written = {path.name: path for path in analysis.write(tmp_path)}
    assert {path.name for path in tmp_path.iterdir()} == set(written)
    with written["sweep.csv"].open() as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    assert {row["cheapest_in"] for row in rows} == {"flops", "ms", "bytes"}
    for row in rows:
        assert float(row["share_edge"]) + float(row["share_cloud"]) == pytest.approx(1)
        assert float(row["ms_per_right"]) == pytest.approx(float(row["ms"]) / float(row["accuracy"]))
    with written["options.csv"].open() as file:
        options = {row["option"]: row for row in csv.DictReader(file, delimiter=";")}
    assert float(options["full model at the cloud"]["bytes_per_right"]) == pytest.approx(5000 / 0.9)
    assert list(options) == ["cascade", "edge alone", "full model at the cloud", "full model at the edge"]
    assert written["pareto.png"].read_bytes().startswith(b"\x89PNG")


def test_other_thresholds_and_policies_are_analysed_instead_of_the_bundles(
    toy_bundle: Bundle, dataset: Dataset
) -> None:
    everything = analyse(toy_bundle, dataset, SITE, policy="entropy", thresholds={"edge": float(np.log(3))})
    assert everything.views()[0].leaves.all()
    assert everything.cascade().mean_bytes == 0


def test_links_that_the_cascade_does_not_have_are_refused(toy_bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="--rtt-ms: expected one number from 0 up for every cut, or 1, one a cut"):
        site_of(toy_bundle.spec, "litert", [1.0], [1.0, 2.0], [])


def test_a_folder_that_cannot_be_written_is_found_before_the_work() -> None:
    with pytest.raises(UsageError, match="cannot write an evaluation to /proc/none"):
        prepare_folder(Path("/proc/none"))
