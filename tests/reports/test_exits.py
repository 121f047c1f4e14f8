from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from branchy.core.policies import probabilities
from branchy.reports.exits import ExitView, as_cascade, calibration_table, exit_files

LABELS = np.array([0, 0, 1, 1, 1])
CLASSES = ("ant", "bee", "cat")


def _logits(predictions: list[int], height: float) -> np.ndarray:
    return height * np.eye(3)[predictions]


EDGE = _logits([0, 1, 1, 1, 2], 2.0)
FULL = _logits([0, 0, 1, 1, 2], 4.0)
LEAVES = np.array([True, False, True, False, True])


@pytest.fixture
def views() -> list[ExitView]:
    edge = ExitView.of("edge", EDGE, LABELS, 2.0, LEAVES)
    cloud = ExitView.of("cloud", FULL, LABELS, 1.0, ~LEAVES)
    return [edge, cloud, as_cascade([edge, cloud]), ExitView.of("full", FULL, LABELS, 1.0, None)]


def _read(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode()), delimiter=";"))


def test_a_view_has_confidences_before_and_after_its_temperature(views: list[ExitView]) -> None:
    edge = views[0]
    assert edge.predictions.tolist() == [0, 1, 1, 1, 2]
    assert edge.before == pytest.approx(probabilities(EDGE).max(axis=1))
    assert edge.after == pytest.approx(probabilities(EDGE, 2.0).max(axis=1))
    assert (edge.after < edge.before).all()


def test_the_cascade_has_each_samples_answer_from_where_it_leaves(views: list[ExitView]) -> None:
    cascade = views[2]
    assert cascade.predictions.tolist() == [0, 0, 1, 1, 2]
    assert cascade.after[0] == views[0].after[0]
    assert cascade.after[1] == views[1].after[1]


def test_exits_have_accuracy_share_and_calibration(views: list[ExitView]) -> None:
    edge, cloud, _, full = _read(exit_files(views, CLASSES)["exits.csv"])
    assert [float(edge[name]) for name in ("accuracy", "share", "accuracy_of_left")] == pytest.approx([0.6, 0.6, 2 / 3])
    confidence = views[0].after[0]  # the same of all five
    assert float(edge["ece_mass"]) == pytest.approx(abs(confidence - 0.6))
    assert float(edge["ece_mass_before"]) == pytest.approx(abs(views[0].before[0] - 0.6))
    assert float(cloud["accuracy_of_left"]) == 1.0
    assert full["left"] == full["share"] == ""


def test_classes_have_the_gap_to_the_full_model_and_that_of_the_confidence(views: list[ExitView]) -> None:
    rows = {(row["exit"], row["class"]): row for row in _read(exit_files(views, CLASSES)["classes.csv"])}
    ant, bee, cat = (rows["edge", name] for name in CLASSES)
    assert (float(ant["accuracy"]), float(ant["gap_to_full"])) == (0.5, 0.5)
    assert (float(bee["accuracy"]), float(bee["gap_to_full"])) == (pytest.approx(2 / 3), 0.0)
    assert (bee["named"], float(bee["accuracy_when_named"])) == ("3", pytest.approx(2 / 3))
    assert float(bee["calibration_gap"]) == pytest.approx(views[0].after[0] - 2 / 3)
    assert (cat["samples"], cat["accuracy"], cat["gap_to_full"]) == ("0", "", "")  # a class without samples
    assert cat["named"] == "1"


def test_confusions_are_counted_by_true_and_named_class(views: list[ExitView]) -> None:
    rows = _read(exit_files(views, CLASSES)["confusion.csv"])
    edge = {(row["true"], row["predicted"]): int(row["samples"]) for row in rows if row["exit"] == "edge"}
    assert edge == {("ant", "ant"): 1, ("ant", "bee"): 1, ("bee", "bee"): 2, ("bee", "cat"): 1}


def test_every_sample_is_in_the_diagrams_once(views: list[ExitView]) -> None:
    rows = _read(exit_files(views, CLASSES)["reliability.csv"])
    for when in ("before", "after"):
        for bins in ("width", "mass"):
            found = [r for r in rows if (r["exit"], r["temperature"], r["bins"]) == ("edge", when, bins)]
            assert sum(int(row["samples"]) for row in found) == 5


def test_the_table_has_a_line_an_exit(views: list[ExitView]) -> None:
    lines = calibration_table(views).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["edge", "cloud", "cascade", "full"]
    assert "60.0%" in lines[2]
    assert "2.00" in lines[2]
