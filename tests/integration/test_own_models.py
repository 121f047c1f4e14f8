"""Models that know nothing of branchy, from training to answers over a broker."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import own_keras
import pytest

from branchy.brokers.embedded import EmbeddedBroker
from branchy.config import DeviceSettings, LinkSettings
from branchy.core.messages import Answer
from branchy.datasets import Dataset, load
from branchy.models.wanted import Wanted
from branchy.runner.analysis import analyse, site_of
from branchy.runner.cascade import Cascade
from branchy.runner.device import Device
from branchy.runner.evaluation import evaluate
from branchy.runner.processes import Interrupts, Processes, branchy
from branchy.runner.training import TrainOptions, train
from branchy.runner.tuning import TuneOptions, tune
from branchy.store.bundle import Bundle

pytestmark = pytest.mark.slow

TIMEOUT_S = 60.0
OWN = own_keras.__file__
CLASSES = 3
HALF = TuneOptions(target_share=(50, 50))


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 x 32 coloured noise of three classes, one a colour."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % CLASSES
    x = rng.integers(0, 120, (120, 32, 32, 3), dtype=np.uint8)
    x[np.arange(120), :, :, y] += 100
    path = tmp_path_factory.mktemp("data") / "pixels.npz"
    np.savez(path, x_train=x[:96], y_train=y[:96], x_test=x[96:], y_test=y[96:])
    return path


def _trained(pixels: Path, out: Path, arch: str, wanted: Wanted) -> Bundle:
    return train(TrainOptions(str(pixels), out=out, arch=arch, wanted=wanted, epochs=1, batch_size=96)).bundle


def _carried_through(
    bundle: Bundle, data: Dataset, broker: EmbeddedBroker, folder: Path, options: TuneOptions = HALF
) -> None:
    """Tune, evaluate and serve; what the tiers answer is what the cascade says in this process."""
    tuned = tune(bundle, data, replace(options, out=folder / "tuned")).bundle
    assert evaluate(tuned, data).samples == len(data.test)
    said = analyse(tuned, data, site_of(tuned.spec, "litert", [10.0], [20.0], [8.0])).text()
    assert [line.split()[0] for line in said.splitlines()[2:6]] == ["edge", "cloud", "cascade", "full"]
    assert re.search(r"^It (pays|does not pay)", said, re.MULTILINE)
    samples = np.stack([sample for sample, _ in data.test])
    expected = Cascade(tuned).predict(samples)
    name, back = folder.name, LinkSettings(brokers=broker.brokers)
    with Interrupts() as interrupts, Processes(interrupts, folder) as processes:
        children = {}
        for tier in ("edge", "cloud"):
            line = branchy("serve", "--bundle", tuned.path, "--tier", tier, "--cascade", name)
            line += ["--back", broker.brokers, "--ready-file", str(folder / f"{tier}.ready")]
            children[tier] = processes.start(tier, line)
        for tier, child in children.items():
            processes.wait_for_file(child, folder / f"{tier}.ready", TIMEOUT_S)
        settings = DeviceSettings(bundle=tuned.path, back=back, cascade=name, deadline_ms=20_000)
        with Device(tuned, settings) as device:
            came = sorted(device.run(samples, window=8), key=lambda outcome: outcome.index)
    assert [_said(o.answer) for o in came if o.answer] == [_said(a) for a in expected]
    assert {answer.certified for answer in expected} == {options.alpha is not None}


def _said(answer: Answer) -> tuple[str | None, str | None, bool]:
    return answer.exit, answer.label, answer.certified


def test_a_model_of_keras_applications(pixels: Path, tmp_path: Path, embedded_broker: EmbeddedBroker) -> None:
    bundle = _trained(pixels, tmp_path / "b", "keras:MobileNetV2", Wanted(cut="block_7_add"))
    assert bundle.spec.stages[0].activation.shape == (2, 2, 64)
    _carried_through(bundle, load(str(pixels)), embedded_broker, tmp_path)


def test_a_file_of_the_user_s_own(pixels: Path, tmp_path: Path, embedded_broker: EmbeddedBroker) -> None:
    wanted = Wanted(cut="auto:1", heads=(f"{OWN}:head",), preprocessing=f"{OWN}:centred")
    bundle = _trained(pixels, tmp_path / "b", f"{OWN}:build", wanted)
    _carried_through(bundle, load(str(pixels)), embedded_broker, tmp_path, TuneOptions(alpha=0.5))


def test_a_saved_model_keeps_its_accuracy_and_its_weights_while_exits_are_added(
    pixels: Path, tmp_path: Path, embedded_broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    data = load(str(pixels))
    model = own_keras.build(data.input.tensor.shape, CLASSES)
    model.compile("adam", "sparse_categorical_crossentropy")
    x, y = data.pool.read(np.arange(len(data.pool)))
    model.fit(own_keras.centred(x.astype(np.float32)), y, epochs=3, batch_size=16, verbose=0)
    model.save(tmp_path / "mine.keras")
    wanted = Wanted(cut="stem", heads=("input",), preprocessing=f"{OWN}:centred", freeze_backbone=True)
    with caplog.at_level(logging.INFO, "branchy"):
        bundle = _trained(pixels, tmp_path / "b", str(tmp_path / "mine.keras"), wanted)
    assert "the model as it came, without exits: " in caplog.text
    samples, _ = data.test.read(np.arange(len(data.test)))
    theirs = np.asarray(model(own_keras.centred(samples.astype(np.float32))))
    ours = [answer.probabilities for answer in Cascade(bundle, stage="full").predict(samples)]
    assert np.array_equal(np.argmax(ours, axis=1), theirs.argmax(axis=1))
    _carried_through(bundle, data, embedded_broker, tmp_path)
