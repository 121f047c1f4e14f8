"""How the papers' tables are chosen, timed and written."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.papers import choosing, networks, training
from benchmarks.papers.judging import Judged, Row
from benchmarks.papers.tables import TABLES, Published
from benchmarks.papers.text import markdown
from benchmarks.papers.timing import Timed, Times, chain, in_turn
from branchy.core.tuning import ExitOutputs
from branchy.models.backend import keras


@pytest.fixture
def outputs() -> ExitOutputs:
    """Eight samples; the edge is right where it is sure, and wrong on the last three, of which the cloud knows two."""
    labels = np.zeros(8, dtype=np.int64)
    edge = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    cloud = np.array([0, 0, 0, 0, 0, 0, 0, 1])
    scores = np.array([[0.99, 0.98, 0.97, 0.96, 0.95, 0.6, 0.5, 0.4], [0.9] * 8])
    return ExitOutputs(("edge", "cloud"), "max_prob", scores, np.stack([edge, cloud]), cloud, labels, 2)


def test_the_cheapest_thresholds_that_reach_an_accuracy_are_chosen(outputs: ExitOutputs) -> None:
    chosen = choosing.cheapest(outputs, (1.0, 10.0), least=7 / 8)
    assert choosing.accuracy(outputs, chosen) == 7 / 8
    assert choosing.shares(outputs, chosen) == [5 / 8, 3 / 8]
    laxer = choosing.cheapest(outputs, (1.0, 10.0), least=6 / 8)
    assert choosing.shares(outputs, laxer)[0] > 5 / 8


def test_where_no_thresholds_reach_it_the_most_accurate_are_chosen(outputs: ExitOutputs) -> None:
    assert choosing.accuracy(outputs, choosing.cheapest(outputs, (1.0, 10.0), least=1.0)) == 7 / 8


def test_the_rules_ask_for_our_full_nets_accuracy_and_for_the_papers_distance_from_it() -> None:
    asked = choosing.least_accuracies(0.9, Published(80.70, 79.17, 1.9, (41.5, 13.8, 44.7)))
    assert asked["no drop"] == 0.9
    assert asked["paper's drop"] == pytest.approx(0.9 - 0.0153)


def test_every_sample_goes_through_every_way_in_turn_each_time_another_first() -> None:
    seen: list[tuple[str, int]] = []

    def way(name: str, ms: float):
        def run(number: int, sample: np.ndarray) -> float:
            assert sample.tolist() == [number]
            seen.append((name, number))
            return ms * number

        return run

    found = in_turn({"full": way("full", 3.0), "cascade": way("cascade", 1.0)}, np.arange(4))
    assert found == {"full": 4.5, "cascade": 1.5}
    assert seen[2:] == [
        *(("full", 0), ("cascade", 0), ("cascade", 1), ("full", 1)),
        *(("full", 2), ("cascade", 2), ("cascade", 3), ("full", 3)),
    ]


class FakeStage:
    def __init__(self, ms: float) -> None:
        self.ms = ms

    def run(self, inputs: np.ndarray) -> tuple[float, np.ndarray]:
        return self.ms, inputs + 1


def test_a_sample_costs_the_stages_that_it_reaches() -> None:
    run = chain([FakeStage(1.0), FakeStage(10.0), FakeStage(100.0)], reached=[1, 3, 2])
    assert [run(number, np.zeros(1)) for number in range(3)] == [1.0, 111.0, 11.0]


def _found(full: float, accuracy: float, branchy_ms: float) -> tuple[Judged, Timed]:
    row = Row({"edge": 0.9}, accuracy, {"edge": 0.75, "cloud": 0.25})
    times = Times(branchy_ms, branchy_ms / 2, 4.0)
    return Judged(full, {"edge": 0.5, "cloud": 0.75}, {"no drop": row}), Timed(
        Times(6.0, 6.0, 8.0), {"no drop": times}, 1.5
    )


def test_a_row_compares_each_seed_with_its_own_full_net() -> None:
    text = markdown(TABLES["b-lenet"], [0, 1], {"b-lenet": [_found(0.99, 0.98, 2.0), _found(0.97, 0.96, 3.0)]})
    published, full, row = (line.split(" | ") for line in text.splitlines()[2:5])
    assert published[:1] + published[2:5] == ["| published", "99.25", "-0.05", "94.3, 5.63"]
    assert full[2] == "98.00 ± 1.41"
    assert row[2:5] == ["97.00 ± 1.41", "1.00 ± 0.00", "75.0, 25.0"]
    assert row[5:] == ["2.50 ± 0.71", "2.00 ± 0.00", "5.00 ± 1.41", "4.00 ± 0.00 |"]
    assert "edge 50.00 ± 0.00, cloud 75.00 ± 0.00" in text


def test_how_the_papers_code_counts_is_told_of_its_own_topologies_alone() -> None:
    found = [_found(0.99, 0.98, 2.0)]
    own, changed = markdown(TABLES["b-lenet"], [0], {"b-lenet": found, "b-lenet-strided": found}).splitlines()[4:6]
    assert own.split(" | ")[7] == "6.00 ± 0.00"
    assert changed.split(" | ")[7] == ""


def test_a_changed_topology_begins_with_the_weights_of_the_net_without_exits(tmp_path: Path) -> None:
    paper, changed = TABLES["b-lenet"].topologies.values()
    full, strided = networks.without_exits(paper)((28, 28, 1), 10), changed((28, 28, 1), 10)
    full.model.save(tmp_path / "model.keras")
    last = keras.Model(strided.model.inputs, strided.stages[-1].logits)
    samples = np.random.default_rng(0).random((3, 28, 28, 1), np.float32)
    assert not np.allclose(last(samples).numpy(), full.model(samples).numpy())
    training.take_weights(last, tmp_path)
    np.testing.assert_array_equal(last(samples).numpy(), full.model(samples).numpy())
