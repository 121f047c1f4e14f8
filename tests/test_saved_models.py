"""The bundle that comes with branchy: small, whole, and right as it was trained."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from branchy.datasets import load
from branchy.datasets.named import FETCHED
from branchy.runner.cascade import Cascade
from branchy.runner.held_out import check_fits
from branchy.runner.processes import Interrupts, Processes
from branchy.runner.stand import Stand
from branchy.runner.tier_loading import load_tier
from branchy.store.bundle import Bundle

SHIPPED = Path(__file__).parent.parent / "saved_models" / "fashion-mnist-b-lenet"
MOST_BYTES = 3_000_000


def test_the_shipped_bundle_is_small_and_names_its_command_and_seed():
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < MOST_BYTES
    training = json.loads((SHIPPED / "manifest.json").read_text(encoding="utf-8"))["training"]
    assert training["command"].startswith("branchy train fashion-mnist ")
    assert isinstance(training["seed"], int)


@pytest.mark.parametrize("tier", ["edge", "fog", "cloud", "full"])
def test_each_tier_of_the_shipped_bundle_gives_here_what_it_gave_at_training(tier):
    load_tier(Bundle.load(SHIPPED), (tier,)).close()  # which holds it against its digests and golden inputs


def test_the_shipped_bundle_is_served_from_ready_to_an_answer(embedded_broker, tmp_path):
    bundle = Bundle.load(SHIPPED)
    samples, logits = bundle.golden("edge")
    with Interrupts() as interrupts, Processes(interrupts, tmp_path) as processes:
        stand = Stand(bundle, embedded_broker.brokers, processes, tmp_path)
        stand.start(*stand.tiers)
        stand.wait_ready(*stand.tiers)
        with stand.device("edge") as device:
            answers = [device.ask(sample) for sample in samples]
    assert [answer.status for answer in answers] == ["ok"] * len(samples)
    at_the_edge = {i: answer.label for i, answer in enumerate(answers) if answer.reason == "confident"}
    assert at_the_edge
    assert {i: bundle.spec.labels[logits[i].argmax()] for i in at_the_edge} == at_the_edge


def test_the_shipped_bundle_takes_its_data_set_as_keras_has_it():
    assert FETCHED["fashion-mnist"][1] == Bundle.load(SHIPPED).spec.labels  # Keras' arrays come without names


@pytest.mark.skipif(
    not (SHIPPED.parents[1] / "data" / "fashion-mnist.npz").is_file(),
    reason="expected data/fashion-mnist.npz, which is no part of the repository",
)
def test_the_shipped_bundle_is_as_right_as_its_readme_says(monkeypatch):
    monkeypatch.chdir(SHIPPED.parents[1])
    bundle, data = Bundle.load(SHIPPED), load("fashion-mnist")
    check_fits(data, bundle.spec)
    samples, labels = data.test.read(np.arange(len(data.test)))
    cascade = Cascade(bundle)
    answers = cascade.predict(samples, batch_size=1000)
    cascade.close()
    right = np.mean([bundle.spec.labels[label] == each.label for label, each in zip(labels, answers, strict=True)])
    shares = [np.mean([answer.tier == tier for answer in answers]) for tier in ("edge", "fog", "cloud")]
    readme = (SHIPPED.parent / "README.md").read_text(encoding="utf-8")
    said = re.search(r"Of the 10,000 test samples the cascade gets (\S+) % right.* (\d+), (\d+) and (\d+) %", readme)
    assert said is not None
    assert [f"{100 * right:.1f}", *(f"{100 * share:.0f}" for share in shares)] == list(said.groups())
