"""What `Cascade` says in one process is what tiers in processes of their own say over a broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import toy_bundle as toy
from toy_data import toy_dataset

from branchy.brokers.embedded import EmbeddedBroker
from branchy.config import DeviceSettings, LinkSettings
from branchy.core.messages import Answer
from branchy.runner.cascade import Cascade
from branchy.runner.device import Device
from branchy.runner.processes import Interrupts, Processes, branchy
from branchy.runner.tuning import TuneOptions, tune
from branchy.store.bundle import Bundle

pytestmark = pytest.mark.alone

NAME = "same-answers"
TIMEOUT_S = 60.0


@pytest.fixture
def certified_bundle(toy_bundle: Bundle, tmp_path: Path) -> Bundle:
    options = TuneOptions(out=tmp_path / "certified", unseen=True, thresholds=0.8, alpha=0.4)
    return tune(toy_bundle, toy_dataset(tmp_path / "toy.npz", 600), options).bundle


@pytest.fixture
def device(embedded_broker: EmbeddedBroker, certified_bundle: Bundle, tmp_path: Path) -> Iterator[Device]:
    """A device of a cascade whose second tier runs two stages."""
    with Interrupts() as interrupts, Processes(interrupts, tmp_path) as processes:
        children = {}
        for tier in ("edge", "hall,cloud"):
            line = branchy("serve", "--bundle", certified_bundle.path, "--tier", tier, "--cascade", NAME)
            line += ["--back", embedded_broker.brokers, "--ready-file", str(tmp_path / f"{tier}.ready")]
            children[tier] = processes.start(tier, line)
        for tier, child in children.items():
            processes.wait_for_file(child, tmp_path / f"{tier}.ready", TIMEOUT_S)
        back = LinkSettings(brokers=embedded_broker.brokers)
        settings = DeviceSettings(bundle=certified_bundle.path, back=back, cascade=NAME, deadline_ms=20_000)
        with Device(certified_bundle, settings) as opened:
            yield opened


def test_tiers_answer_as_the_cascade_in_process_does(device: Device, certified_bundle: Bundle) -> None:
    batch = toy.samples(60, seed=5)
    came = sorted(device.run(batch, window=8), key=lambda outcome: outcome.index)
    expected = Cascade(certified_bundle).predict(batch)
    assert {answer.exit for answer in expected} == {"edge", "cloud"}
    assert device.has_certificate
    for outcome, want in zip(came, expected, strict=True):
        answer = outcome.answer
        assert answer is not None, outcome.fault
        assert _facts(answer) == _facts(want)
        assert answer.certified
        assert answer.confidence == pytest.approx(want.confidence, abs=1e-5)
        assert answer.probabilities == pytest.approx(want.probabilities, abs=1e-5)
        for hop, other in zip(answer.hops, want.hops, strict=True):
            # The budget's digits are all that may differ in a message's size.
            assert hop.bytes_up == pytest.approx(other.bytes_up, abs=2)


def _facts(answer: Answer) -> tuple[object, ...]:
    hops = [(hop.tier, hop.exit, hop.index, hop.bytes_up > 0) for hop in answer.hops]
    return (
        answer.status,
        answer.reason,
        answer.tier,
        answer.exit,
        answer.label,
        answer.index,
        answer.model,
        answer.certified,
        hops,
    )
