from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import toy_bundle as toy
from toy_data import toy_dataset

from branchy.core.cascade import Array, CascadeSpec, ExitSettings
from branchy.core.policies import probabilities
from branchy.datasets import Dataset
from branchy.errors import EngineError, UsageError
from branchy.runner import measuring
from branchy.runner.evaluation import evaluate
from branchy.runner.measuring import exit_costs, measure
from branchy.store.bundle import Bundle


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return toy_dataset(tmp_path_factory.mktemp("data") / "toy.npz", 120)


def _edge_probabilities(batch: Array) -> Array:
    return probabilities(toy.edge_logits(batch), 2.0)


def test_bytes_are_what_the_cuts_send(toy_bundle: Bundle) -> None:
    edge, cloud = exit_costs(toy_bundle.spec, "bytes")
    assert edge == 0
    assert 8 * 4 <= cloud < 200


def test_the_digest_is_of_the_samples_that_certified(toy_bundle: Bundle, dataset: Dataset) -> None:
    part = dataset.pool.take(np.arange(50))
    first, again = measure(toy_bundle, [part, part], "litert", 1, None)
    changed = replace(part, labels=(part.labels + 1) % 3)
    (other,) = measure(toy_bundle, [changed], "litert", 1, None)
    assert first.sha256 == again.sha256 != other.sha256


def test_every_exit_is_measured_on_every_sample_as_a_tier_would(toy_bundle: Bundle, dataset: Dataset) -> None:
    part = dataset.pool.take(np.arange(100))
    samples, _ = part.read(np.arange(100))
    (found,) = measure(toy_bundle, [part], "litert", 1, "margin")
    outputs = found.outputs
    top = np.sort(_edge_probabilities(samples), axis=1)
    assert outputs.scores[0] == pytest.approx(top[:, -1] - top[:, -2], abs=1e-5)
    with_all = evaluate(toy_bundle, replace(dataset, test=part), thresholds=1.0)
    assert with_all.exits[-1].correct == (outputs.predictions[-1] == outputs.labels).sum()
    assert (outputs.full == toy.cloud_logits(samples).argmax(axis=1)).all()


def test_logits_that_are_not_finite_are_a_failure(
    toy_bundle: Bundle, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "exit_logits", lambda *a: {"edge": np.array([[np.nan, 0.0, 0.0]])})
    with pytest.raises(EngineError, match="stage edge gave logits that are not finite; train the bundle again"):
        measure(toy_bundle, [dataset.pool], "litert", 1, None)


def _with_policy(spec: CascadeSpec, policies: dict[str, str]) -> CascadeSpec:
    def changed(name: str, settings: ExitSettings | None) -> ExitSettings | None:
        return replace(settings, policy=policies[name]) if settings and name in policies else settings

    stages = [
        replace(s, files={f: replace(file, exit=changed(s.name, file.exit)) for f, file in s.files.items()})
        for s in spec.stages
    ]
    return replace(spec, stages=tuple(stages))


def test_the_policy_is_that_of_the_exits_that_decide(toy_bundle: Bundle) -> None:
    spec = _with_policy(toy_bundle.spec, {"edge": "margin"})
    assert measuring._own_policy(measuring.exits_of(spec, "litert")) == "margin"
    three = {"a": ExitSettings("margin"), "b": ExitSettings("entropy"), "c": ExitSettings()}
    with pytest.raises(UsageError, match=r"different policies \(margin, entropy\): name one with --policy"):
        measuring._own_policy(three)
