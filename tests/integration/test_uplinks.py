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
from branchy.runner.cascade import Cascade
from branchy.runner.training import TrainOptions, train
from branchy.store.bundle import Bundle
from branchy.transport.kafka import KafkaLink


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Edge and fog send different things; no exit but the last is ever sure."""
    out = tmp_path_factory.mktemp("uplinks") / "b"
    options = TrainOptions("digits", out=out, epochs=1, thresholds=1.0, uplink=("sample", "activation"))
    return train(options).bundle


@pytest.mark.parametrize("fmt", ["litert", "keras"])
def test_a_cascade_hands_the_sample_on_and_says_what_the_full_model_says(bundle: Bundle, fmt: FormatName) -> None:
    samples, _ = load("digits").test.read(np.arange(8))
    answers = Cascade(bundle, fmt).predict(samples)
    assert {len(answer.hops) for answer in answers} == {3}
    sample_bytes = Cascade(bundle, fmt).request_bytes(samples[0])
    assert all(answer.hops[0].bytes_up == pytest.approx(sample_bytes, abs=8) for answer in answers)  # the budget
    full = np.stack([answer.probabilities for answer in Cascade(bundle, fmt, stage="full").predict(samples)])
    assert np.abs(np.stack([answer.probabilities for answer in answers]) - full).max() < 0.01


@pytest.mark.parametrize("tiers", [("edge", "fog,cloud"), ("edge,fog", "cloud")])
def test_tiers_answer_as_the_cascade_in_process_does(
    bundle: Bundle, tiers: tuple[str, str], embedded_broker: Any, tmp_path: Path
) -> None:
    samples, _ = load("digits").test.read(np.arange(8))
    name = f"uplinks-{tiers[0].replace(',', '-')}"
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
        assert [hop.tier for hop in answer.hops] == [tier.partition(",")[0] for tier in tiers]
        assert answer.probabilities == pytest.approx(want.probabilities, abs=1e-3)
