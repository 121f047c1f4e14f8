from __future__ import annotations

from pathlib import Path

import pytest
from toy_data import toy_dataset

from branchy.errors import UsageError
from branchy.runner.tier_loading import load_tier
from branchy.runner.tuning import TuneOptions, tune
from branchy.runner.tuning_certified import take_certified
from branchy.store.bundle import Bundle


@pytest.fixture(scope="module")
def certified(toy_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("certified")
    options = TuneOptions(out=folder / "bundle", unseen=True, alpha=0.1)
    return tune(toy_bundle, toy_dataset(folder / "toy.npz", 900), options).bundle


def test_another_certified_vector_keeps_the_promise(certified: Bundle, tmp_path: Path) -> None:
    made = certified.manifest.certificate
    assert made is not None
    taken = take_certified(certified, TuneOptions(out=tmp_path / "safer", certified=2))
    assert taken.manifest.certificate == made
    assert taken.digest != certified.digest
    edge = taken.spec.stage("edge").files["litert"].exit
    assert edge is not None
    assert edge.threshold == made.certified[1].thresholds["edge"]
    assert made.promise(taken.spec).count(f"2 of {len(made.certified)} from safe to cheap") == 1
    assert load_tier(taken, ("edge",)).model.certified
    assert taken.spec.stage("edge").files["keras"] == certified.spec.stage("edge").files["keras"]
    assert Bundle.load(tmp_path / "safer").digest == taken.digest


@pytest.mark.parametrize(
    ("number", "line"),
    [(0, "expected a number from 1, the safest, to .*, got 0"), (10_000, "got 10000; branchy inspect --json lists")],
)
def test_a_number_that_is_not_there_is_refused(certified: Bundle, tmp_path: Path, number: int, line: str) -> None:
    with pytest.raises(UsageError, match=line):
        take_certified(certified, TuneOptions(out=tmp_path / "x", certified=number))
    assert list(tmp_path.iterdir()) == []


def test_without_a_certificate_there_is_nothing_to_take(toy_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no certificate; make one with branchy tune --alpha"):
        take_certified(toy_bundle, TuneOptions(out=tmp_path / "x", certified=1))
    with pytest.raises(UsageError, match="got --alpha and --certified"):
        take_certified(toy_bundle, TuneOptions(out=tmp_path / "x", certified=1, alpha=0.1))
