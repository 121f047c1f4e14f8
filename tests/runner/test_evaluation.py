from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_bundle as toy
from toy_data import toy_dataset

from branchy.core.policies import probabilities
from branchy.datasets import Dataset, load
from branchy.errors import DatasetUsageError, UsageError
from branchy.reports.csv import read_csv
from branchy.runner.evaluation import evaluate
from branchy.runner.tuning import TuneOptions, tune
from branchy.store.bundle import Bundle

N = 150


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("data") / "toy.npz"
    toy.write_dataset(path, N)
    return load(str(path))


def _edge_probabilities() -> np.ndarray:
    return probabilities(toy.edge_logits(toy.samples(N, seed=1)), 2.0)


def test_the_whole_cascade_is_counted_by_exit(toy_bundle: Bundle, dataset: Dataset) -> None:
    result = evaluate(toy_bundle, dataset)
    sure = _edge_probabilities().max(axis=1) >= 0.8
    edge_right = _edge_probabilities().argmax(axis=1) == dataset.test.labels
    cloud_right = toy.cloud_logits(toy.samples(N, seed=1)).argmax(axis=1) == dataset.test.labels
    edge, cloud = result.exits
    assert (edge.exit, edge.left, edge.correct) == ("edge", sure.sum(), (sure & edge_right).sum())
    assert (cloud.exit, cloud.left, cloud.correct) == ("cloud", (~sure).sum(), (~sure & cloud_right).sum())
    assert (edge.flops, cloud.flops) == (300, 600)
    assert result.samples == N
    assert result.accuracy == pytest.approx((edge.correct + cloud.correct) / N)
    assert result.mean_flops == pytest.approx((300 * edge.left + 600 * cloud.left) / N)
    assert edge.bytes_up == 0
    assert result.mean_bytes_up == pytest.approx(cloud.bytes_up / N)
    assert result.mean_ms > 0


def test_one_exit_and_the_full_model_get_every_sample(toy_bundle: Bundle, dataset: Dataset) -> None:
    (edge,) = evaluate(toy_bundle, dataset, stage="edge").exits
    assert (edge.left, edge.correct) == (N, (_edge_probabilities().argmax(axis=1) == dataset.test.labels).sum())
    (full,) = evaluate(toy_bundle, dataset, stage="full").exits
    assert (full.exit, full.left, full.correct, full.flops) == ("full", N, 135, 500)


def test_the_full_model_is_charged_with_the_whole_sample(toy_bundle: Bundle, dataset: Dataset) -> None:
    full = evaluate(toy_bundle, dataset, stage="full")
    assert 16 < full.mean_bytes_up < 1000
    assert evaluate(toy_bundle, dataset, stage="edge").mean_bytes_up == 0


def test_the_table_has_a_line_an_exit_and_one_for_all(toy_bundle: Bundle, dataset: Dataset) -> None:
    lines = evaluate(toy_bundle, dataset).table().splitlines()
    assert lines[0] == f"toy, 150 test samples, litert, bundle toy {toy_bundle.digest[:12]}"
    assert [line.split()[0] for line in lines[4:]] == ["edge", "cloud", "all"]
    assert "max_prob >= 0.8" in lines[4]
    assert "always" in lines[5]
    assert "100.0%" in lines[6]


def test_an_exit_that_nobody_took_shows_no_figures(toy_bundle: Bundle, dataset: Dataset) -> None:
    lines = evaluate(toy_bundle, dataset, thresholds=0.0).table().splitlines()
    assert lines[5].split() == ["cloud", "always", "0", "0.0%", "-", "-", "-", "-", "-"]


def test_an_entropy_threshold_reads_at_most(toy_bundle: Bundle, dataset: Dataset) -> None:
    table = evaluate(toy_bundle, dataset, policy="entropy", thresholds=0.5).table()
    assert "entropy <= 0.5" in table


def test_the_csv_has_a_row_a_sample_that_says_the_same(tmp_path: Path, toy_bundle: Bundle, dataset: Dataset) -> None:
    result = evaluate(toy_bundle, dataset, csv=tmp_path / "results.csv", batch_size=16)
    rows = read_csv(tmp_path / "results.csv").rows
    assert [row.test for row in rows] == list(range(N))
    assert [row.expected for row in rows] == dataset.test.labels.tolist()
    assert sum(row.predicted == row.expected for row in rows) == result.correct
    assert sum(row.tier == "edge" for row in rows) == result.exits[0].left
    assert sum(row.bytes_up or 0 for row in rows) == sum(tally.bytes_up for tally in result.exits)
    assert len({row.request for row in rows}) == N


def test_the_csv_says_which_answers_are_certified_where_something_was_promised(
    tmp_path: Path, toy_bundle: Bundle, dataset: Dataset
) -> None:
    options = TuneOptions(out=tmp_path / "certified", unseen=True, alpha=0.4, thresholds=0.8)
    made = tune(toy_bundle, toy_dataset(tmp_path / "toy.npz", 300), options).bundle

    def said(bundle: Bundle, **options: Any) -> set[bool | None]:
        evaluate(bundle, dataset, csv=tmp_path / "r.csv", **options)
        return {row.certified for row in read_csv(tmp_path / "r.csv").rows}

    assert said(made) == {True}
    assert said(made, thresholds=0.5) == {False}
    assert said(made, stage="full") == {None}
    assert said(toy_bundle) == {None}


def test_a_csv_that_cannot_be_written_is_found_before_the_work(
    tmp_path: Path, toy_bundle: Bundle, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("branchy.runner.cascade.Cascade.predict", lambda *a: pytest.fail("the work was begun"))
    with pytest.raises(UsageError, match="cannot write results to"):
        evaluate(toy_bundle, dataset, csv=tmp_path / "none" / "results.csv")


def test_a_data_set_of_another_kind_is_refused(toy_bundle: Bundle, dataset: Dataset) -> None:
    tensor = replace(dataset.input.tensor, shape=(8, 8, 1))
    for changes, line in [
        ({"labels": ("ant", "cat", "bee")}, "expected the bundle's classes ant, bee, cat, got ant, cat, bee"),
        (
            {"input": replace(dataset.input, tensor=tensor)},
            r"expected samples \(4, 4, 1\) of uint8, .* got \(8, 8, 1\)",
        ),
        ({"input": replace(dataset.input, high=255.0)}, r"expected values in the bundle's range 0\.\.16, .* 0\.\.255"),
    ]:
        with pytest.raises(DatasetUsageError, match=line):
            evaluate(toy_bundle, replace(dataset, **changes))
