"""What a cut sends instead of its activation, trained and served."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client import Client
from commands import Command

from branchy.config import LinkSettings
from branchy.core.cascade import FormatName
from branchy.datasets import load
from branchy.models import bottleneck_training
from branchy.runner.cascade import Cascade
from branchy.runner.training import TrainOptions, train
from branchy.store.bundle import Bundle
from branchy.transport.kafka import KafkaLink


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Edge sends the sample, fog a bottleneck; no exit but the last is ever sure."""
    options = TrainOptions(
        "digits",
        out=tmp_path_factory.mktemp("uplinks") / "b",
        epochs=1,
        thresholds=1.0,
        uplink=("sample", "bottleneck"),
        uplink_bytes=80,
        formats=("litert", "litert-int8"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bottleneck_training, "STEPS", 100)
        return train(options).bundle


def test_a_bundle_says_what_its_cuts_send(bundle: Bundle) -> None:
    edge, fog, cloud = bundle.spec.stages
    assert edge.uplink is not None
    assert fog.uplink is not None
    assert (edge.uplink.kind, fog.uplink.kind) == ("sample", "bottleneck")
    assert fog.activation == cloud.input
    assert cloud.input.dtype == "uint8"
    assert 0 < cloud.input.size_bytes <= 80 - 72  # which the tensor's head has


@pytest.mark.parametrize("fmt", ["litert", "litert-int8"])
def test_a_cascade_sends_the_sample_and_then_codes_alone(bundle: Bundle, fmt: FormatName) -> None:
    samples, _ = load("digits").test.read(np.arange(32))
    cascade = Cascade(bundle, fmt)
    answers = cascade.predict(samples)
    assert {len(answer.hops) for answer in answers} == {3}
    sample_bytes, codes = cascade.request_bytes(samples[0]), bundle.spec.stages[2].input.size_bytes
    for answer in answers:  # but for the digits of the budget, and the names of the stages
        assert answer.hops[0].bytes_up == pytest.approx(sample_bytes, abs=8)
        assert answer.hops[1].bytes_up == pytest.approx(sample_bytes - 64 + codes, abs=16)
    indices = [answer.index for answer in answers]
    agree = np.mean([a == b.index for a, b in zip(indices, Cascade(bundle).predict(samples), strict=True)])
    assert agree >= (0.7 if fmt == "litert-int8" else 1.0)


def test_tiers_answer_as_the_cascade_in_process_does(bundle: Bundle, embedded_broker: Any, tmp_path: Path) -> None:
    samples, _ = load("digits").test.read(np.arange(8))
    tiers, name = ("edge", "fog", "cloud"), "uplinks"
    with ExitStack() as stack:
        link = KafkaLink(LinkSettings(brokers=embedded_broker.brokers), "c")
        client = Client(link, name, ("edge",), bundle.digest)
        stack.callback(client.close)
        commands = {}
        for tier in tiers:
            where = ("--cascade", name, "--back", embedded_broker.brokers, "--ready-file", tmp_path / f"{tier}.ready")
            flags = ("--bundle", bundle.path, "--tier", tier, *where)
            commands[tier] = stack.enter_context(Command(tmp_path, "serve", *flags))
        for tier, command in commands.items():
            command.wait_for(tmp_path / f"{tier}.ready")
        asked = [client.ask(sample, to="edge") for sample in samples]
        answers = client.answers(len(asked))
    for identifier, want in zip(asked, Cascade(bundle).predict(samples), strict=True):
        answer = answers[identifier]
        assert (answer.exit, answer.reason, answer.index) == ("cloud", "final", want.index)
        assert tuple(hop.tier for hop in answer.hops) == tiers
        assert answer.probabilities == pytest.approx(want.probabilities, abs=1e-3)
        assert all(hop.bytes_up > 0 for hop in answer.hops[:-1])
